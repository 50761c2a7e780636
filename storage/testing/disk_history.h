/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_history.h - what a disk held after each of the requests it got, and therefore what it may
 * hold after a power cut: each sector what it held when the last completed flush was done, or
 * something from later. Snapshots in the image hold exactly what they were taken of.
 *
 * Sectors are known by their stamps (sector_stamp.h), 0 for zeros. Steps are tied to a record of
 * host writes by how many records there were before and after.
 */
#ifndef STORAGE_TESTING_DISK_HISTORY_H
#define STORAGE_TESTING_DISK_HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct disk_step {
    uint64_t *sectors; /* owned */
    size_t first_record, end_record;
    bool is_flush; /* all before it is durable when it is over */
};

struct disk_snapshot {
    char name[32];
    uint64_t *sectors; /* owned */
    /* Records before its creation began and was over, and the same of its deletion. */
    size_t create_first, create_end, delete_first, delete_end;
};

struct disk_history {
    size_t sector_count;
    struct disk_step *steps; /* owned; the first is how it began */
    size_t step_count;
    struct disk_snapshot *snapshots; /* owned */
    size_t snapshot_count;
    uint64_t *below; /* owned: what the backing file holds; NULL: zeros */
};

/* Starts with zeros, or with what is below. Takes `below`. */
void disk_history_init(struct disk_history *history, size_t sector_count, uint64_t *below);
void disk_history_finish(struct disk_history *history);

/* A copy of the newest step, to be changed; valid until the next. */
struct disk_step *disk_history_begin(struct disk_history *history, size_t record_count);
void disk_history_end(struct disk_history *history, size_t record_count);

/* The newest content, for reading. */
const uint64_t *disk_history_now(const struct disk_history *history);

/* A snapshot of the newest content; the step is under way. */
struct disk_snapshot *disk_history_snapshot(struct disk_history *history, const char *name);

/* The snapshot of this name that is not deleted; NULL: none. */
struct disk_snapshot *disk_history_find(struct disk_history *history, const char *name);

/* Is this a state that a cut after `cut` records may leave of the image? Else what is wrong. */
bool disk_history_allows(const struct disk_history *history, const uint8_t *image, size_t len,
                         size_t cut, char *out_trouble, size_t trouble_size);

#endif
