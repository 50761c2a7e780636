/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_resize.c - see qcow_resize.h.
 *
 * What a power cut may leave is the old size with the old content, or the new size:
 *
 * To grow, a longer L1 table is published first, with the old size. Behind the old end there may be
 * bytes that must not come to light: the rest of the last cluster, what a disk that shrank left in
 * the same L2 table, the state of a machine, a longer backing file. They become zeros, durably;
 * then the size is published.
 *
 * To shrink, the size is published together with an L1 table that leads to nothing behind the L2
 * table that the new end lies in. What that one still has behind it is given back afterwards.
 */
#include "storage/qcow/qcow_resize.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "base/limits.h"
#include "storage/qcow/qcow_bitmap_resize.h"
#include "storage/qcow/qcow_edit.h"
#include "storage/qcow/qcow_flush.h"
#include "storage/qcow/qcow_layout.h"
#include "storage/qcow/qcow_map.h"
#include "storage/qcow/qcow_zero.h"

/* The guest bytes of one L2 table. */
static uint64_t l1_reach(const struct qcow_image *image)
{
    return (uint64_t)1 << qcow_header_l1_reach_bits(&image->header);
}

static uint64_t l1_count(const struct qcow_image *image, uint64_t virtual_bytes)
{
    return divide_up(virtual_bytes, l1_reach(image));
}

static struct err *check_size(const struct qcow_image *image, uint64_t virtual_bytes)
{
    if (image->base.is_read_only)
        return err_new(ERR_STATE, "the image is open for reading only");
    if (virtual_bytes % 512 != 0)
        return err_new(ERR_INVALID, "a disk has whole sectors of 512 bytes");
    if (virtual_bytes > DISK_BYTES_MAX || l1_count(image, virtual_bytes) * 8 > QCOW_L1_BYTES_MAX)
        return err_new(ERR_INVALID,
                       "clusters of %" PRIu64 " bytes can not hold so much; copy the image to one "
                       "with larger ones ('vm-disk convert')",
                       image->cluster_bytes);
    if (image->context.has_backing && image->backing == NULL)
        return err_new(ERR_STATE, "its backing image is not open");
    return NULL;
}

/* The first `kept` entries, and zeros up to `count`. */
static struct err *cut_l1(struct qcow_edit_l1 *l1, uint64_t kept, uint64_t count)
{
    uint64_t *entries = realloc(l1->entries, count * 8 + 8);
    if (entries == NULL)
        return err_new(ERR_NO_MEMORY, "L1 table");

    l1->entries = entries;
    kept = MIN(kept, (uint64_t)l1->count);
    memset(entries + kept, 0, (count - kept) * 8);
    l1->count = (uint32_t)count;
    return NULL;
}

/* Makes an L1 table of `count` entries, of which the first `kept` are as before, the image's, with
 * this size. */
static struct err *publish_l1(struct qcow_edit *edit, uint64_t virtual_bytes, uint64_t kept,
                              uint64_t count)
{
    const struct qcow_header *header = &edit->check.header;
    struct qcow_edit_l1 l1 = {.entries = NULL};
    uint64_t offset = 0;

    struct err *err = qcow_edit_l1_load(edit, header->l1_offset, header->l1_entries, &l1);
    if (err == NULL)
        err = cut_l1(&l1, kept, count);
    if (err == NULL)
        err = qcow_edit_take(edit, count * 8, QCOW_OWNER_L1, &offset);
    if (err == NULL)
        err = qcow_edit_raise(edit);
    if (err == NULL)
        err = qcow_edit_l1_write(edit, &l1, offset);
    if (err == NULL)
        err = qcow_edit_publish_disk(edit, virtual_bytes, l1.count, offset);
    qcow_edit_l1_finish(&l1);
    return err;
}

static struct err *replace_l1(struct qcow_image *image, uint64_t virtual_bytes, uint64_t kept,
                              uint64_t count)
{
    struct qcow_edit edit;

    TRY(qcow_flush_settle(image));
    TRY(qcow_edit_begin(&edit, image->file));
    struct err *err = qcow_edit_end(&edit, publish_l1(&edit, virtual_bytes, kept, count));
    struct err *reload_err = qcow_image_reload(image);
    if (err == NULL)
        return reload_err;
    err_free(reload_err);
    return err;
}

static struct err *publish_size(struct qcow_image *image, uint64_t virtual_bytes)
{
    struct err *err = qcow_header_write_field(image->file, QCOW_HEADER_AT_SIZE, virtual_bytes);
    if (err != NULL) {
        host_file_give_up(image->file); /* what stands there is unknown */
        return err;
    }
    image->header.virtual_bytes = virtual_bytes;
    return NULL;
}

/* Entries behind those of the old size lead to what must not come to light. */
static bool has_entries_from(struct qcow_image *image, uint64_t first)
{
    bool has_any = false;

    lock_acquire(&image->lock);
    for (uint64_t i = first; i < image->l1.count; i++)
        has_any = has_any || image->l1.entries[i] != 0;
    lock_release(&image->lock);
    return has_any;
}

/* What the L2 table that the old end lies in has left behind it. */
static struct err *zero_data(struct qcow_image *image, uint64_t from, uint64_t end)
{
    while (from < end) {
        struct qcow_extent extent;
        lock_acquire(&image->lock);
        struct err *err =
            qcow_map_lookup_locked(image, from, end - from, QCOW_COUNTS_NONE, &extent);
        lock_release(&image->lock);
        if (err == NULL && (extent.kind == QCOW_KIND_DATA || extent.kind == QCOW_KIND_COMPRESSED))
            err = qcow_write_zeroes(&image->base, from, extent.bytes, true);
        if (err != NULL)
            return err;
        from += extent.bytes;
    }
    return NULL;
}

/* From the old end on, as far as something else than zeros may show. */
static struct err *zero_added(struct qcow_image *image, uint64_t from, uint64_t to)
{
    uint64_t end = align_up(from, image->cluster_bytes);

    if (image->backing != NULL)
        end = MAX(end, image->backing->virtual_bytes);
    end = MIN(end, to);
    if (end > from)
        TRY(qcow_write_zeroes(&image->base, from, end - from, true));
    TRY(zero_data(image, end, MIN(align_up(from, l1_reach(image)), to)));
    return qcow_flush_settle(image);
}

static struct err *grow(struct qcow_image *image, uint64_t virtual_bytes)
{
    uint64_t before = image->base.virtual_bytes, kept = l1_count(image, before);
    uint64_t count = MAX(l1_count(image, virtual_bytes), (uint64_t)image->header.l1_entries);

    if (count > image->header.l1_entries || has_entries_from(image, kept))
        TRY(replace_l1(image, before, kept, count));
    image->base.virtual_bytes = virtual_bytes;
    struct err *err = zero_added(image, before, virtual_bytes);
    if (err == NULL)
        err = publish_size(image, virtual_bytes);
    if (err != NULL)
        image->base.virtual_bytes = before;
    return err;
}

static struct err *shrink(struct qcow_image *image, uint64_t virtual_bytes)
{
    uint64_t kept = l1_count(image, virtual_bytes);
    uint64_t end = MIN(align_up(virtual_bytes, l1_reach(image)), image->base.virtual_bytes);

    TRY(replace_l1(image, virtual_bytes, kept, MAX(kept, (uint64_t)1)));
    if (end == virtual_bytes)
        return NULL;
    image->base.virtual_bytes = end;
    struct err *err = qcow_discard(&image->base, virtual_bytes, end - virtual_bytes);
    image->base.virtual_bytes = virtual_bytes;
    err_free(err); /* it takes space, and becomes zeros when the disk grows */
    return NULL;
}

static struct err *resize(struct qcow_image *image, uint64_t virtual_bytes)
{
    return virtual_bytes > image->base.virtual_bytes ? grow(image, virtual_bytes)
                                                     : shrink(image, virtual_bytes);
}

/* The file's bitmaps are those that the image keeps up, and nothing waits for a flush. */
static struct err *take_bitmaps_out(struct qcow_image *image, uint64_t virtual_bytes,
                                    struct qcow_bitmap_set *out_set)
{
    bool is_stale;

    TRY(qcow_flush_settle(image));
    TRY(qcow_bitmap_track_save(image, &is_stale));
    TRY(qcow_bitmap_set_take_out(image->file, virtual_bytes, out_set));
    return qcow_image_reload(image);
}

static struct err *put_bitmaps_back(struct qcow_image *image, uint64_t changed_from,
                                    struct qcow_bitmap_set *set)
{
    TRY(qcow_bitmap_set_put_back(image->file, set, changed_from));
    qcow_bitmap_track_finish(image);
    TRY(qcow_image_reload(image));
    return qcow_bitmap_track_load(image);
}

static struct err *resize_with_bitmaps(struct qcow_image *image, uint64_t virtual_bytes)
{
    uint64_t changed_from = MIN(virtual_bytes, image->base.virtual_bytes);
    struct qcow_bitmap_set set = {.list = NULL};

    struct err *err = take_bitmaps_out(image, virtual_bytes, &set);
    if (err == NULL)
        err = resize(image, virtual_bytes);
    if (set.count > 0) {
        struct err *put_err = put_bitmaps_back(image, changed_from, &set);
        if (err == NULL)
            err = put_err;
        else
            err_free(put_err);
    }
    qcow_bitmap_set_finish(&set);
    return err;
}

struct err *qcow_image_resize(struct block *block, uint64_t virtual_bytes)
{
    struct qcow_image *image = qcow_image_of(block);
    struct err *err = check_size(image, virtual_bytes);

    if (err == NULL && virtual_bytes != block->virtual_bytes)
        err = qcow_header_has_bitmaps(&image->header) ? resize_with_bitmaps(image, virtual_bytes)
                                                      : resize(image, virtual_bytes);
    return err_wrap(err, "make image '%s' %" PRIu64 " bytes large", image->file->path,
                    virtual_bytes);
}
