/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_bitmap_save.c - writes a set of bitmaps (qcow_bitmap.h) as an edit of the image.
 * Tested by: qcow_bitmap_test.c
 *
 * Bitmaps that changed get new tables and data, the directory is always new; the extension of the
 * header then leads to it. What the old ones took is free when the edit ends.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked_math.h"
#include "base/cleanup.h"
#include "storage/qcow/qcow_bitmap_directory.h"
#include "storage/qcow/qcow_bitmap_extension.h"
#include "storage/qcow/qcow_edit.h"

#define ALL_ONES 1u /* an entry of a table, without a place */

/* A bitmap on its way into the file. */
struct draft {
    uint64_t *table; /* owned; NULL: it stays as it is there */
};

struct saving {
    struct qcow_edit edit;
    struct qcow_bitmap_set set; /* a copy of the list, with new places; texts and bits borrowed */
    struct draft *drafts;       /* owned */
    uint8_t *directory;         /* owned */
    size_t directory_len;
    uint64_t directory_offset;
};

static uint64_t bytes_of(const struct qcow_bitmap *bitmap)
{
    return divide_up(bitmap->bit_count, 8);
}

static bool is_all(const uint8_t *bits, size_t len, uint8_t value)
{
    return len == 0 || (bits[0] == value && memcmp(bits, bits + 1, len - 1) == 0);
}

/* Places for the table and for those of its parts that have both zeros and ones. */
static struct err *place(struct saving *saving, struct qcow_bitmap *bitmap, struct draft *draft)
{
    uint64_t cluster_bytes = saving->edit.check.cluster_bytes, bytes = bytes_of(bitmap);

    bitmap->table_entries = (uint32_t)divide_up(bytes, cluster_bytes);
    draft->table = calloc((size_t)bitmap->table_entries + 1, sizeof(*draft->table));
    if (draft->table == NULL)
        return err_new(ERR_NO_MEMORY, "bitmap");
    for (uint32_t i = 0; i < bitmap->table_entries; i++) {
        const uint8_t *part = bitmap->bits + i * cluster_bytes;
        size_t len = (size_t)MIN(cluster_bytes, bytes - i * cluster_bytes);
        if (is_all(part, len, 0xff) && len == cluster_bytes)
            draft->table[i] = ALL_ONES;
        else if (!is_all(part, len, 0))
            TRY(qcow_edit_take(&saving->edit, cluster_bytes, QCOW_OWNER_BITMAP, &draft->table[i]));
    }
    /* A table has a place even when it is empty. */
    return qcow_edit_take(&saving->edit, MAX((uint64_t)bitmap->table_entries * 8, (uint64_t)8),
                          QCOW_OWNER_BITMAP, &bitmap->table_offset);
}

static struct err *place_all(struct saving *saving)
{
    struct qcow_bitmap_set *set = &saving->set;

    for (uint32_t i = 0; i < set->count; i++)
        if (set->list[i].is_changed && set->list[i].bits != NULL)
            TRY(place(saving, &set->list[i], &saving->drafts[i]));
    TRY(qcow_bitmap_directory_build(set, &saving->directory, &saving->directory_len));
    return qcow_edit_take(&saving->edit, saving->directory_len, QCOW_OWNER_BITMAP,
                          &saving->directory_offset);
}

static struct err *write_bitmap(struct saving *saving, const struct qcow_bitmap *bitmap,
                                const struct draft *draft)
{
    uint64_t cluster_bytes = saving->edit.check.cluster_bytes, bytes = bytes_of(bitmap);
    size_t table_bytes = MAX((size_t)bitmap->table_entries, (size_t)1) * 8;
    CLEANUP(cleanup_free) uint8_t *table = calloc(1, table_bytes);
    struct writer out = writer_of(table, table_bytes);

    if (table == NULL)
        return err_new(ERR_NO_MEMORY, "bitmap");
    for (uint32_t i = 0; i < bitmap->table_entries; i++) {
        writer_be64(&out, draft->table[i]);
        if (draft->table[i] > ALL_ONES)
            TRY(qcow_edit_write(&saving->edit, bitmap->bits + i * cluster_bytes,
                                (size_t)MIN(cluster_bytes, bytes - i * cluster_bytes),
                                draft->table[i]));
    }
    return qcow_edit_write(&saving->edit, table, table_bytes, bitmap->table_offset);
}

static struct err *save(struct saving *saving)
{
    const struct qcow_bitmap_set *set = &saving->set;

    TRY(place_all(saving));
    TRY(qcow_edit_raise(&saving->edit));
    for (uint32_t i = 0; i < set->count; i++)
        if (saving->drafts[i].table != NULL)
            TRY(write_bitmap(saving, &set->list[i], &saving->drafts[i]));
    TRY(qcow_edit_write(&saving->edit, saving->directory, saving->directory_len,
                        saving->directory_offset));
    return qcow_bitmap_extension_publish(saving->edit.check.file,
                                         &(struct qcow_bitmap_place){
                                             .count = set->count,
                                             .directory_bytes = saving->directory_len,
                                             .directory_offset = saving->directory_offset,
                                         });
}

struct err *qcow_bitmap_set_save(struct host_file *file, const struct qcow_bitmap_set *set)
{
    struct saving saving = {.set = *set};

    if (set->count > 0)
        TRY(qcow_bitmap_extension_check_room(file));
    saving.drafts = calloc((size_t)set->count + 1, sizeof(*saving.drafts));
    saving.set.list = calloc((size_t)set->count + 1, sizeof(*saving.set.list));
    struct err *err = saving.drafts == NULL || saving.set.list == NULL
                          ? err_new(ERR_NO_MEMORY, "bitmaps")
                          : qcow_edit_begin(&saving.edit, file);
    if (err == NULL) {
        for (uint32_t i = 0; i < set->count; i++)
            saving.set.list[i] = set->list[i];
        err = qcow_edit_end(&saving.edit, save(&saving));
    }
    for (uint32_t i = 0; saving.drafts != NULL && i < set->count; i++)
        free(saving.drafts[i].table);
    free(saving.drafts);
    free(saving.set.list);
    free(saving.directory);
    return err;
}
