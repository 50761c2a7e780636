/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_image.c - see qcow_image.h.
 */
#include "storage/qcow/qcow_image.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/limits.h"
#include "base/log.h"
#include "storage/qcow/qcow_flush.h"
#include "storage/qcow/qcow_image_internal.h"
#include "storage/qcow/qcow_l2_budget.h"
#include "storage/qcow/qcow_plan.h"
#include "storage/qcow/qcow_read.h"
#include "storage/qcow/qcow_repair.h"
#include "storage/qcow/qcow_snapshot.h"
#include "storage/qcow/qcow_write.h"
#include "storage/qcow/qcow_zero.h"

/* No request is running. */
static void forget_tables(struct qcow_image *image) LOCK_UNCHECKED
{
    qcow_plan_finish(image);
    qcow_allocator_finish(&image->allocator);
    qcow_guard_finish(&image->guard);
    qcow_refcounts_finish(&image->refcounts);
    qcow_l2_cache_finish(&image->l2);
    qcow_l1_finish(&image->l1);
    image->allocator = (struct qcow_allocator){.file = NULL};
    image->guard = (struct qcow_guard){.ranges = NULL};
    image->refcounts = (struct qcow_refcounts){.file = NULL};
    image->l2 = (struct qcow_l2_cache){.file = NULL};
    image->l1 = (struct qcow_l1){.file = NULL};
}

static void image_destroy(struct qcow_image *image)
{
    forget_tables(image);
    qcow_bitmap_track_finish(image);
    lock_condition_finish(&image->changed);
    lock_finish(&image->lock);
    host_file_destroy(image->file);
    free(image);
}

/* Clean and durable, its bitmaps too. */
static struct err *settle(struct qcow_image *image, bool *out_is_stale)
{
    *out_is_stale = false;
    TRY(qcow_flush_settle(image));
    return image->base.is_read_only ? NULL : qcow_bitmap_track_save(image, out_is_stale);
}

/* The image is freed whatever happens; the first error is told. */
static struct err *qcow_close(struct block *block)
{
    struct qcow_image *image = qcow_image_of(block);
    bool is_stale;
    struct err *err = settle(image, &is_stale);

    if (image->backing != NULL) {
        struct err *backing_err = block_close(image->backing);
        if (err == NULL)
            err = backing_err;
        else
            err_free(backing_err);
    }
    image_destroy(image);
    return err;
}

static const struct block_ops qcow_image_ops = {
    .format = "qcow2",
    .read = qcow_read,
    .write = qcow_write,
    .flush = qcow_flush,
    .write_zeroes = qcow_write_zeroes,
    .discard = qcow_discard,
    .plan = qcow_plan,
    .finish = qcow_plan_end,
    .close = qcow_close,
};

static const struct block_ops qcow_tracked_ops = {
    .format = "qcow2",
    .read = qcow_read,
    .write = qcow_bitmap_tracked_write,
    .flush = qcow_flush,
    .write_zeroes = qcow_bitmap_tracked_zeroes,
    .discard = qcow_bitmap_tracked_discard,
    .plan = qcow_bitmap_tracked_plan,
    .finish = qcow_plan_end,
    .close = qcow_close,
};

/* qcow2, "autoclear_features": what is not known must be cleared before the image is changed. */
static struct err *clear_autoclear(struct qcow_image *image, uint64_t kept)
{
    if (image->header.autoclear == (image->header.autoclear & kept))
        return NULL;
    image->header.autoclear &= kept;
    return qcow_header_write_field(image->file, QCOW_HEADER_AT_AUTOCLEAR, image->header.autoclear);
}

/* Bitmaps that can not be read can not be kept up either; then the image has none, rather than such
 * as say less than is true. */
static struct err *load_bitmaps(struct qcow_image *image)
{
    struct err *err = qcow_bitmap_track_load(image);

    if (err == NULL || err_kind(err) != ERR_INVALID)
        return err;
    log_warning("bitmaps are malformed, they are given up", "reason=%s", err_message(err));
    err_free(err);
    return clear_autoclear(image, 0);
}

struct err *qcow_image_check_sound_locked(struct qcow_image *image)
{
    if (!image->is_corrupt)
        return NULL;
    return err_new(ERR_STATE,
                   "image '%s' is corrupt and not written any more; repair a copy of it with "
                   "'vm-disk check -r all'",
                   image->file->path);
}

/* qcow2, "incompatible_features", "Corrupt bit": "the image must not be written to". What waits
 * for a flush stays in memory. */
struct err *qcow_image_corrupt_locked(struct qcow_image *image, struct err *reason)
{
    if (!image->is_corrupt && image->header.version >= 3) {
        image->header.incompatible |= QCOW_INCOMPATIBLE_CORRUPT;
        /* Whether it can be told there or not, it is not written any more. */
        err_free(qcow_header_write_field(image->file, QCOW_HEADER_AT_INCOMPATIBLE,
                                         image->header.incompatible));
    }
    if (!image->is_corrupt)
        log_error("image is corrupt", "image=%s reason=%s", image->file->path, err_message(reason));
    image->is_corrupt = true;
    return err_wrap(reason, "image '%s' is corrupt and not written any more", image->file->path);
}

struct err *qcow_image_take_locked(struct qcow_image *image, uint64_t wanted,
                                   struct qcow_run *out_run)
{
    struct err *err = qcow_allocator_take(&image->allocator, wanted, out_run);

    return err != NULL && image->allocator.has_met_table ? qcow_image_corrupt_locked(image, err)
                                                         : err;
}

/* Of the disk that the header describes. */
static struct err *load_tables(struct qcow_image *image)
{
    image->base.virtual_bytes = image->header.virtual_bytes;
    image->cluster_bytes = (uint64_t)1 << image->header.cluster_bits;
    image->context = qcow_entry_context_of(&image->header);
    image->subcluster_bytes = (uint64_t)1 << image->context.subcluster_bits;
    qcow_l1_init(&image->l1, image->file, &image->header);
    if (!image->base.is_read_only)
        TRY(qcow_l1_load(&image->l1));
    TRY(qcow_l2_cache_init(&image->l2, image->file, &image->context, image->header.l1_entries,
                           qcow_l2_budget_of_process(), &image->lock));
    TRY(qcow_guard_init(&image->guard, &image->header));
    return qcow_allocator_init(&image->allocator, image->file, &image->refcounts, &image->guard,
                               &image->header);
}

static struct err *load(struct qcow_image *image)
{
    TRY(qcow_header_read(image->file, &image->header));
    if (image->base.is_read_only)
        return load_tables(image);
    TRY(qcow_header_check_writable(&image->header));
    TRY(qcow_repair_unclosed(image->file, &image->header));
    TRY(load_tables(image));
    TRY(qcow_refcounts_load(&image->refcounts, image->file, &image->header));
    TRY(qcow_guard_load(&image->guard, image->file, &image->header, &image->l1, &image->refcounts));
    return clear_autoclear(image,
                           qcow_header_has_bitmaps(&image->header) ? QCOW_AUTOCLEAR_BITMAPS : 0);
}

struct err *qcow_image_reload(struct qcow_image *image)
{
    forget_tables(image);
    struct err *err = load(image);
    if (err != NULL) {
        image->base.is_read_only = true; /* and no bytes: whatever comes is refused */
        image->base.virtual_bytes = 0;
    }
    return err_wrap(err, "read image '%s' again", image->file->path);
}

static bool has_tracked_bitmaps(const struct qcow_image *image) LOCK_UNCHECKED
{
    return image->bitmaps.has_enabled;
}

struct err *qcow_image_open(struct host_file *file, bool is_read_only, struct block **out_block)
{
    struct qcow_image *image = calloc(1, sizeof(*image));
    if (image == NULL) {
        struct err *err = err_new(ERR_NO_MEMORY, "open '%s'", file->path);
        host_file_destroy(file);
        return err;
    }

    lock_init(&image->lock, LOCK_QCOW);
    lock_condition_init(&image->changed);
    image->base.ops = &qcow_image_ops;
    image->base.is_read_only = is_read_only;
    image->file = file;
    struct err *err = load(image);
    if (err == NULL && !is_read_only)
        err = load_bitmaps(image);
    if (err != NULL) {
        err = err_wrap(err, "open image '%s'", file->path);
        image_destroy(image);
        return err;
    }
    if (has_tracked_bitmaps(image))
        image->base.ops = &qcow_tracked_ops;
    *out_block = &image->base;
    return NULL;
}

void qcow_image_set_backing(struct block *block, struct block *backing)
{
    struct qcow_image *image = qcow_image_of(block);

    ASSERT(image->backing == NULL && image->context.has_backing);
    image->backing = backing;
}

struct block *qcow_image_take_backing(struct block *block)
{
    struct qcow_image *image = qcow_image_of(block);

    return TAKE_PTR(image->backing);
}

/* The header as it would be if the disk were that of the snapshot. */
static struct err *describe(struct qcow_header *header, const struct qcow_snapshot *snapshot)
{
    uint64_t reach = (uint64_t)1 << qcow_header_l1_reach_bits(header);

    if (snapshot->disk_bytes > DISK_BYTES_MAX ||
        divide_up(snapshot->disk_bytes, reach) > snapshot->l1_entries)
        return err_new(ERR_INVALID,
                       "its L1 table of %" PRIu32 " entries is not one of a disk of %" PRIu64
                       " bytes",
                       snapshot->l1_entries, snapshot->disk_bytes);
    header->virtual_bytes = snapshot->disk_bytes;
    header->l1_offset = snapshot->l1_offset;
    header->l1_entries = snapshot->l1_entries;
    return NULL;
}

struct err *qcow_image_show_snapshot(struct block *block, const char *id_or_name)
{
    struct qcow_image *image = qcow_image_of(block);
    struct qcow_snapshot_table table = {.list = NULL};

    if (!block->is_read_only)
        return err_new(ERR_STATE, "snapshot '%s' of '%s' can only be read", id_or_name,
                       image->file->path);
    TRY(qcow_snapshot_list(image->file, &table));
    const struct qcow_snapshot *snapshot = NULL;
    struct err *err = qcow_snapshot_find(&table, id_or_name, &snapshot);
    if (err == NULL)
        err = describe(&image->header, snapshot);
    qcow_snapshot_table_finish(&table);
    if (err == NULL) {
        forget_tables(image);
        err = load_tables(image);
    }
    return err_wrap(err, "snapshot '%s' of '%s'", id_or_name, image->file->path);
}

const struct qcow_header *qcow_image_header(struct block *block)
{
    return &qcow_image_of(block)->header;
}

struct err *qcow_image_seal(struct block *block)
{
    struct qcow_image *image = qcow_image_of(block);
    bool is_stale;

    TRY(settle(image, &is_stale));
    if (is_stale)
        TRY(qcow_image_reload(image));
    block->is_read_only = true;
    return NULL;
}

void qcow_image_unseal(struct block *block)
{
    block->is_read_only = false;
}
