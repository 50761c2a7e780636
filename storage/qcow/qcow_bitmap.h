/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_bitmap.h - persistent bitmaps of an image: which parts of the disk were written since.
 *
 * One bit stands for 1 << granularity_bits bytes. An enabled bitmap is kept up while the image is
 * written; one that is marked in use on disk was not closed properly, so it can not be relied on,
 * only removed. The operations on files want to be alone with the image. A power cut leaves the old
 * bitmaps or the new, or the image without any, but none that says less than is true.
 * Thread: any that may block.
 */
#ifndef STORAGE_QCOW_QCOW_BITMAP_H
#define STORAGE_QCOW_QCOW_BITMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct host_file;
struct qcow_header;

#define QCOW_BITMAPS_MAX                65535u
#define QCOW_BITMAP_NAME_MAX            1023u
#define QCOW_BITMAP_GRANULARITY_MIN     9u
#define QCOW_BITMAP_GRANULARITY_MAX     31u
#define QCOW_BITMAP_GRANULARITY_DEFAULT 16u

#define QCOW_BITMAP_IN_USE 1u /* flags, as they stand in the file */
#define QCOW_BITMAP_AUTO   2u /* enabled */

struct qcow_bitmap {
    char *name; /* owned */
    uint32_t flags;
    uint8_t type;
    uint8_t granularity_bits;
    uint8_t *bits; /* owned; least significant first; NULL: can not be relied on, kept as it is */
    uint64_t bit_count;
    bool is_changed;       /* since it was loaded */
    uint64_t table_offset; /* where it stands */
    uint32_t table_entries;
    uint64_t flags_at; /* where in the file the flags stand */
    uint8_t *extra;    /* owned; extra data, kept as it is */
    uint32_t extra_bytes;
};

struct qcow_bitmap_set {
    struct qcow_bitmap *list; /* owned */
    uint32_t count;
    uint64_t virtual_bytes;
};

/* Empty when the image has none, or has them without the mark that they can be trusted.
 * ERR_INVALID: the directory or a table is malformed. */
ERR_RESULT qcow_bitmap_set_load(struct host_file *file, const struct qcow_header *header,
                                struct qcow_bitmap_set *out_set);
void qcow_bitmap_set_finish(struct qcow_bitmap_set *set); /* accepts a zeroed one */

/* Makes these the image's bitmaps. */
ERR_RESULT qcow_bitmap_set_save(struct host_file *file, const struct qcow_bitmap_set *set);

struct qcow_bitmap *qcow_bitmap_find(const struct qcow_bitmap_set *set, const char *name);
uint64_t qcow_bitmap_dirty_bits(const struct qcow_bitmap *bitmap);
void qcow_bitmap_mark(struct qcow_bitmap *bitmap, uint64_t offset, uint64_t len);

/* Of the file; granularity_bits 0: the default. */
ERR_RESULT qcow_bitmap_list(struct host_file *file, struct qcow_bitmap_set *out_set);
ERR_RESULT qcow_bitmap_add(struct host_file *file, const char *name, unsigned granularity_bits,
                           bool is_enabled);
ERR_RESULT qcow_bitmap_remove(struct host_file *file, const char *name);
ERR_RESULT qcow_bitmap_clear(struct host_file *file, const char *name);
ERR_RESULT qcow_bitmap_enable(struct host_file *file, const char *name, bool is_enabled);
/* What `source` says, `target` says too afterwards. */
ERR_RESULT qcow_bitmap_merge(struct host_file *file, const char *source, const char *target);

#endif
