/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_flush.c - see qcow_flush.h.
 *
 * How it works. A power cut keeps any of the writes since the last barrier, in any order, torn
 * between sectors. What must hold in every such state: no cluster has a count below its
 * references, every table that is pointed to has its content, every entry points to data that the
 * guest wrote there. One flush is
 *
 *   capture  under the lock: copies of changed refcounts (list A), of changed L2 slices and L1
 *            sectors (list B), and the clusters whose last entry is removed in B
 *   A        refcounts; guest data and zeroed new L2 tables were written before; barrier
 *   B        L2 slices, L1 sectors; barrier
 *   release  the clusters that lost their entry are punched and may be used again
 *
 * B is a copy because an entry that is set while A runs points to data and counts that A's barrier
 * may not cover. Counts are lowered in memory by release and reach the disk with the next A. If
 * nothing but guest data in place changed, the first barrier is the only one; if nothing changed
 * there is none.
 *
 * When a step fails, everything captured counts as changed again and the next flush repeats it;
 * a failed barrier is for ever (host_file_sync).
 *
 * Flushes run one at a time. Who comes while one runs waits for it and then for one more, which
 * all that wait share.
 */
#include "storage/qcow/qcow_flush.h"

#include "storage/qcow/qcow_write_list.h"

/* Clusters that wait for a flush before they can be used again; the file grows meanwhile. */
#define DROPPED_CLUSTERS_MAX 4096u

struct capture {
    struct qcow_write_list counts; /* A */
    struct qcow_write_list slices; /* B */
    struct qcow_write_list l1;     /* B */
    bool has_data;
};

/* Metadata goes where tables of its kind are, and nowhere else. */
static struct err *check_places_locked(struct qcow_image *image, const struct capture *capture)
    REQUIRES(&image->lock)
{
    if (qcow_write_list_is_guarded(&capture->counts, &image->guard, QCOW_TABLE_REFCOUNTS) &&
        qcow_write_list_is_guarded(&capture->slices, &image->guard, QCOW_TABLE_L2) &&
        qcow_write_list_is_guarded(&capture->l1, &image->guard, QCOW_TABLE_L1))
        return NULL;
    return err_new(ERR_INVALID, "metadata would be written where no table is");
}

static struct err *capture_locked(struct qcow_image *image, struct capture *capture)
    REQUIRES(&image->lock)
{
    *capture = (struct capture){.has_data = image->flush.has_unsynced_data};
    TRY(qcow_image_check_sound_locked(image));
    image->flush.has_unsynced_data = false;
    qcow_allocator_capture(&image->allocator);
    TRY(qcow_refcounts_capture(&image->refcounts, &capture->counts));
    TRY(qcow_l2_cache_capture(&image->l2, &capture->slices));
    TRY(qcow_l1_capture(&image->l1, &capture->l1));
    struct err *err = check_places_locked(image, capture);
    return err == NULL ? NULL : qcow_image_corrupt_locked(image, err);
}

static struct err *write_captured(struct qcow_image *image, const struct capture *capture)
{
    bool has_entries = capture->slices.first != NULL || capture->l1.first != NULL;

    TRY(qcow_write_list_submit(&capture->counts, image->file));
    if (capture->has_data || has_entries || capture->counts.first != NULL)
        TRY(host_file_sync(image->file));
    if (!has_entries)
        return NULL;
    TRY(qcow_write_list_submit(&capture->slices, image->file));
    TRY(qcow_write_list_submit(&capture->l1, image->file));
    return host_file_sync(image->file);
}

static void settle_locked(struct qcow_image *image, const struct capture *capture, bool is_durable)
    REQUIRES(&image->lock)
{
    qcow_refcounts_settle(&image->refcounts, is_durable);
    qcow_l2_cache_settle(&image->l2, is_durable);
    qcow_l1_settle(&image->l1, is_durable);
    if (is_durable) {
        qcow_allocator_release_end(&image->allocator);
    } else {
        qcow_allocator_restore(&image->allocator);
        image->flush.has_unsynced_data |= capture->has_data;
    }
}

/* One flush, by the one thread that runs it. */
static struct err *run(struct qcow_image *image)
{
    struct capture capture;

    lock_acquire(&image->lock);
    struct err *err = capture_locked(image, &capture);
    lock_release(&image->lock);
    if (err == NULL)
        err = write_captured(image, &capture);
    if (err == NULL) {
        lock_acquire(&image->lock);
        qcow_allocator_release_begin(&image->allocator);
        lock_release(&image->lock);
        qcow_allocator_punch_released(&image->allocator);
    }

    lock_acquire(&image->lock);
    settle_locked(image, &capture, err == NULL);
    lock_release(&image->lock);
    qcow_write_list_finish(&capture.counts);
    qcow_write_list_finish(&capture.slices);
    qcow_write_list_finish(&capture.l1);
    return err;
}

struct err *qcow_flush(struct block *block)
{
    struct qcow_image *image = qcow_image_of(block);
    struct err *err = NULL;

    if (image->base.is_read_only)
        return NULL;

    lock_acquire(&image->lock);
    uint64_t wanted = image->flush.started + 1;
    while (err == NULL && image->flush.succeeded < wanted) {
        if (image->flush.is_running) {
            lock_condition_wait(&image->changed, &image->lock);
            continue;
        }
        uint64_t number = ++image->flush.started;
        image->flush.is_running = true;
        lock_release(&image->lock);
        err = run(image);
        lock_acquire(&image->lock);
        image->flush.is_running = false;
        if (err == NULL)
            image->flush.succeeded = number;
        lock_condition_broadcast(&image->changed);
    }
    lock_release(&image->lock);
    return err;
}

struct err *qcow_flush_if_wanted(struct qcow_image *image)
{
    lock_acquire(&image->lock);
    bool is_wanted = qcow_l2_cache_wants_flush(&image->l2) ||
                     qcow_refcounts_wants_flush(&image->refcounts) ||
                     image->allocator.dropped.count > DROPPED_CLUSTERS_MAX;
    lock_release(&image->lock);
    return is_wanted ? qcow_flush(&image->base) : NULL;
}

static bool is_clean(struct qcow_image *image)
{
    lock_acquire(&image->lock);
    bool is_clean = !image->flush.has_unsynced_data && image->refcounts.changed == NULL &&
                    image->l2.dirty_count == 0 && !image->l1.is_dirty &&
                    image->allocator.dropped.count == 0;
    lock_release(&image->lock);
    return is_clean;
}

struct err *qcow_flush_settle(struct qcow_image *image)
{
    if (image->base.is_read_only)
        return NULL;
    lock_acquire(&image->lock);
    qcow_allocator_give_back(&image->allocator);
    lock_release(&image->lock);
    while (!is_clean(image))
        TRY(qcow_flush(&image->base));
    return NULL;
}
