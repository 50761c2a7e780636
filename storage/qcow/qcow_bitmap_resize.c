/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_bitmap_resize.c - see qcow_bitmap_resize.h.
 * Tested by: qcow_bitmap_test.c, qcow_resize_cut_test.c
 */
#include "storage/qcow/qcow_bitmap_resize.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "storage/host_file.h"
#include "storage/qcow/qcow_bitmap_directory.h"
#include "storage/qcow/qcow_header.h"

static struct err *check(const struct qcow_bitmap_set *set, uint64_t virtual_bytes)
{
    for (uint32_t i = 0; i < set->count; i++) {
        const struct qcow_bitmap *bitmap = &set->list[i];
        if (bitmap->bits == NULL)
            return err_new(ERR_STATE,
                           "bitmap '%s' was not closed properly and can not be relied on; remove "
                           "it first ('vm-disk bitmap --remove')",
                           bitmap->name);
        if (virtual_bytes == 0)
            return err_new(ERR_STATE,
                           "a disk without bytes has no bitmaps, but there is '%s'; remove it "
                           "first ('vm-disk bitmap --remove')",
                           bitmap->name);
        TRY(err_wrap(qcow_bitmap_check_size(virtual_bytes, bitmap->granularity_bits), "bitmap '%s'",
                     bitmap->name));
    }
    return NULL;
}

struct err *qcow_bitmap_set_take_out(struct host_file *file, uint64_t virtual_bytes,
                                     struct qcow_bitmap_set *out_set)
{
    struct qcow_bitmap_set set = {.list = NULL};

    struct err *err = qcow_bitmap_list(file, &set);
    if (err == NULL)
        err = check(&set, virtual_bytes);
    if (err == NULL && set.count > 0)
        err = qcow_bitmap_set_save(file, &(struct qcow_bitmap_set){.list = NULL});
    if (err != NULL) {
        qcow_bitmap_set_finish(&set);
        return err;
    }
    *out_set = set;
    return NULL;
}

static struct err *fit(struct qcow_bitmap *bitmap, uint64_t virtual_bytes, uint64_t changed_from)
{
    uint64_t count = qcow_bitmap_bit_count(virtual_bytes, bitmap->granularity_bits);
    size_t before = (size_t)divide_up(bitmap->bit_count, 8), bytes = (size_t)divide_up(count, 8);
    uint8_t *bits = realloc(bitmap->bits, bytes + 1);
    if (bits == NULL)
        return err_new(ERR_NO_MEMORY, "bitmap '%s'", bitmap->name);

    if (bytes > before)
        memset(bits + before, 0, bytes - before);
    if (count % 8 != 0)
        bits[bytes - 1] &= (uint8_t)((1u << count % 8) - 1);
    bitmap->bits = bits;
    bitmap->bit_count = count;
    bitmap->is_changed = true;
    if (changed_from < virtual_bytes)
        qcow_bitmap_mark(bitmap, changed_from, virtual_bytes - changed_from);
    return NULL;
}

struct err *qcow_bitmap_set_put_back(struct host_file *file, struct qcow_bitmap_set *set,
                                     uint64_t changed_from)
{
    struct qcow_header header;

    if (set->count == 0)
        return NULL;
    TRY(qcow_header_read(file, &header));
    set->virtual_bytes = header.virtual_bytes;
    for (uint32_t i = 0; i < set->count; i++)
        TRY(fit(&set->list[i], header.virtual_bytes, changed_from));
    return err_wrap(
        qcow_bitmap_set_save(file, set),
        "the bitmaps of '%s' are lost and the next copies have to take everything: putting "
        "them back",
        file->path);
}
