/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_l1.c - see qcow_l1.h.
 */
#include "storage/qcow/qcow_l1.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bitmap.h"
#include "base/bytes.h"
#include "base/checked_math.h"
#include "base/cleanup.h"
#include "storage/host_file.h"
#include "storage/qcow/qcow_header.h"
#include "storage/qcow/qcow_write_list.h"

#define SECTOR_BYTES   512u
#define SECTOR_ENTRIES (SECTOR_BYTES / 8)

static uint64_t sector_count(const struct qcow_l1 *l1)
{
    return divide_up(l1->count, SECTOR_ENTRIES);
}

void qcow_l1_set(struct qcow_l1 *l1, uint64_t index, uint64_t entry)
{
    ASSERT(qcow_l1_is_loaded(l1) && index < l1->count);
    l1->entries[index] = entry;
    bitmap_set(l1->dirty, index / SECTOR_ENTRIES);
    l1->is_dirty = true;
}

struct err *qcow_l1_capture(struct qcow_l1 *l1, struct qcow_write_list *list)
{
    if (!l1->is_dirty)
        return NULL;

    uint64_t sectors = sector_count(l1);
    for (uint64_t sector = bitmap_next_set(l1->dirty, sectors, 0); sector < sectors;
         sector = bitmap_next_set(l1->dirty, sectors, sector + 1)) {
        uint64_t first = sector * SECTOR_ENTRIES;
        uint64_t count = MIN(SECTOR_ENTRIES, l1->count - first);
        uint8_t *copy = qcow_write_list_add(list, l1->offset + first * 8, count * 8);
        if (copy == NULL)
            return err_new(ERR_NO_MEMORY, "flush '%s'", l1->file->path);
        struct writer out = writer_of(copy, count * 8);
        for (uint64_t i = 0; i < count; i++)
            writer_be64(&out, l1->entries[first + i]);
        bitmap_set(l1->flushing, sector);
        bitmap_clear(l1->dirty, sector);
    }
    l1->is_dirty = false;
    return NULL;
}

void qcow_l1_settle(struct qcow_l1 *l1, bool is_durable)
{
    for (size_t word = 0; word < bitmap_words(sector_count(l1)); word++) {
        if (!is_durable && l1->flushing[word] != 0) {
            l1->dirty[word] |= l1->flushing[word];
            l1->is_dirty = true;
        }
        l1->flushing[word] = 0;
    }
}

void qcow_l1_init(struct qcow_l1 *l1, struct host_file *file, const struct qcow_header *header)
{
    *l1 = (struct qcow_l1){
        .file = file,
        .offset = header->l1_offset,
        .count = header->l1_entries,
    };
}

struct err *qcow_l1_load(struct qcow_l1 *l1)
{
    size_t bytes = (size_t)l1->count * 8, bitmap = bitmap_bytes(sector_count(l1)) + 8;

    if (qcow_l1_is_loaded(l1))
        return NULL;
    CLEANUP(cleanup_free) uint8_t *data = malloc(bytes + 1);
    CLEANUP(cleanup_free) uint64_t *entries = malloc(bytes + 1);
    CLEANUP(cleanup_free) uint64_t *dirty = calloc(1, bitmap);
    CLEANUP(cleanup_free) uint64_t *flushing = calloc(1, bitmap);
    if (data == NULL || entries == NULL || dirty == NULL || flushing == NULL)
        return err_new(ERR_NO_MEMORY, "L1 table of '%s'", l1->file->path);
    if (bytes > 0)
        TRY(err_wrap(host_file_read_bytes(l1->file, data, bytes, l1->offset),
                     "L1 table of image '%s'", l1->file->path));

    struct reader in = reader_of(data, bytes);
    for (uint32_t i = 0; i < l1->count; i++)
        entries[i] = reader_be64(&in);
    l1->entries = TAKE_PTR(entries);
    l1->dirty = TAKE_PTR(dirty);
    l1->flushing = TAKE_PTR(flushing);
    return NULL;
}

void qcow_l1_finish(struct qcow_l1 *l1)
{
    free(l1->entries);
    free(l1->dirty);
    free(l1->flushing);
}
