/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_bitmap_track.c - see qcow_bitmap_track.h. Tested by: qcow_bitmap_test.c
 */
#include "storage/qcow/qcow_bitmap_track.h"

#include "base/bytes.h"
#include "storage/qcow/qcow_image_internal.h"
#include "storage/qcow/qcow_plan.h"
#include "storage/qcow/qcow_write.h"
#include "storage/qcow/qcow_zero.h"

static bool is_kept_up(const struct qcow_bitmap *bitmap)
{
    return bitmap->bits != NULL && (bitmap->flags & QCOW_BITMAP_AUTO) != 0;
}

struct err *qcow_bitmap_track_load(struct qcow_image *image) LOCK_UNCHECKED
{
    struct qcow_bitmap_tracker *tracker = &image->bitmaps;

    TRY(qcow_bitmap_set_load(image->file, &image->header, &tracker->set));
    for (uint32_t i = 0; i < tracker->set.count; i++)
        tracker->has_enabled = tracker->has_enabled || is_kept_up(&tracker->set.list[i]);
    return NULL;
}

void qcow_bitmap_track_finish(struct qcow_image *image) LOCK_UNCHECKED
{
    qcow_bitmap_set_finish(&image->bitmaps.set);
    image->bitmaps = (struct qcow_bitmap_tracker){.has_enabled = false};
}

/* qcow2, "Bitmap directory entry", flag "in_use": "The bitmap was not saved correctly and may be
 * inconsistent". Four bytes that never lie across sectors. */
static struct err *mark_in_use_locked(struct qcow_image *image) REQUIRES(&image->lock)
{
    struct qcow_bitmap_tracker *tracker = &image->bitmaps;

    for (uint32_t i = 0; i < tracker->set.count; i++) {
        const struct qcow_bitmap *bitmap = &tracker->set.list[i];
        uint8_t field[4];
        struct writer out = writer_of(field, sizeof(field));
        if (!is_kept_up(bitmap))
            continue;
        writer_be32(&out, bitmap->flags | QCOW_BITMAP_IN_USE);
        TRY(host_file_write_bytes(image->file, field, sizeof(field), bitmap->flags_at));
    }
    TRY(host_file_sync(image->file));
    tracker->is_in_use = true;
    return NULL;
}

static void set_bits_locked(struct qcow_image *image, uint64_t offset, uint64_t len)
    REQUIRES(&image->lock)
{
    struct qcow_bitmap_set *set = &image->bitmaps.set;

    for (uint32_t i = 0; i < set->count; i++)
        if (is_kept_up(&set->list[i]))
            qcow_bitmap_mark(&set->list[i], offset, len);
}

static struct err *track(struct qcow_image *image, uint64_t offset, uint64_t len)
{
    struct qcow_bitmap_tracker *tracker = &image->bitmaps;
    struct err *err = NULL;

    lock_acquire(&image->lock);
    if (tracker->has_enabled && !tracker->is_in_use)
        err = mark_in_use_locked(image);
    if (err == NULL)
        set_bits_locked(image, offset, len);
    lock_release(&image->lock);
    return err_wrap(err, "mark the bitmaps of '%s' as in use", image->file->path);
}

struct err *qcow_bitmap_tracked_write(struct block *block, const struct iovec *iovs, int iov_count,
                                      uint64_t offset)
{
    uint64_t len;

    TRY(block_check_vectors(block, BLOCK_REQUEST_CHANGE, iovs, iov_count, offset, &len));
    TRY(track(qcow_image_of(block), offset, len));
    return qcow_write(block, iovs, iov_count, offset);
}

struct err *qcow_bitmap_tracked_zeroes(struct block *block, uint64_t offset, uint64_t len,
                                       bool may_unmap)
{
    TRY(block_check_range(block, BLOCK_REQUEST_CHANGE, offset, len));
    TRY(track(qcow_image_of(block), offset, len));
    return qcow_write_zeroes(block, offset, len, may_unmap);
}

struct err *qcow_bitmap_tracked_discard(struct block *block, uint64_t offset, uint64_t len)
{
    TRY(block_check_range(block, BLOCK_REQUEST_CHANGE, offset, len));
    TRY(track(qcow_image_of(block), offset, len));
    return qcow_discard(block, offset, len);
}

/* Noted before it is known whether it can be planned; if not, the blocking call notes it again. */
bool qcow_bitmap_tracked_plan(struct block *block, enum block_request_kind kind, uint64_t offset,
                              uint64_t len, struct block_plan *plan)
{
    struct qcow_image *image = qcow_image_of(block);

    if (kind == BLOCK_REQUEST_CHANGE) {
        lock_acquire(&image->lock);
        bool is_noted = image->bitmaps.is_in_use;
        if (is_noted)
            set_bits_locked(image, offset, len);
        lock_release(&image->lock);
        if (!is_noted)
            return false;
    }
    return qcow_plan(block, kind, offset, len, plan);
}

struct err *qcow_bitmap_track_save(struct qcow_image *image, bool *out_has_saved) LOCK_UNCHECKED
{
    struct qcow_bitmap_tracker *tracker = &image->bitmaps;
    struct qcow_bitmap_set set;

    *out_has_saved = false;
    if (!tracker->is_in_use || image->is_corrupt)
        return NULL;
    TRY(err_wrap(qcow_bitmap_set_save(image->file, &tracker->set), "save the bitmaps of '%s'",
                 image->file->path));
    *out_has_saved = true;

    /* Where they stand has changed. */
    struct qcow_header header;
    TRY(qcow_header_read(image->file, &header));
    TRY(qcow_bitmap_set_load(image->file, &header, &set));
    qcow_bitmap_set_finish(&tracker->set);
    tracker->set = set;
    tracker->is_in_use = false;
    return NULL;
}
