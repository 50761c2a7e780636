/* SPDX-License-Identifier: Apache-2.0 */
/*
 * saved_disk.h - for tests: a disk that is saved as vm-save does it, but for the memory, into the
 * stores "a" and "b" or others beside its images, and what each snapshot of it has to show.
 */
#ifndef SNAPSHOT_TESTING_SAVED_DISK_H
#define SNAPSHOT_TESTING_SAVED_DISK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "storage/block.h"

#define SAVED_DISK_BYTES         (2u << 20)
#define SAVED_DISK_SNAPSHOTS_MAX 256u

struct saved_disk_snapshot {
    char id[64];
    char store[8]; /* empty: it was deleted */
    char path[128];
    uint8_t *content; /* owned */
};

struct saved_disk {
    char folder[64]; /* holds images/web.img and its layers, and the stores */
    char image[96];  /* images/web.img */
    struct saved_disk_snapshot snapshots[SAVED_DISK_SNAPSHOTS_MAX];
    unsigned count;
    struct block *block; /* owned */
    char *path;          /* owned; of the newest layer */
    uint8_t content[SAVED_DISK_BYTES];
};

ERR_RESULT saved_disk_start(struct saved_disk *disk);
void saved_disk_stop(struct saved_disk *disk);

/* The path of something in the disk's folder, until sixteen more were asked for. */
const char *saved_disk_at(const struct saved_disk *disk, const char *name);

ERR_RESULT saved_disk_change(struct saved_disk *disk);
/* Changes it afterwards. Into the store "old": as a version does that writes down nothing. */
ERR_RESULT saved_disk_save(struct saved_disk *disk, const char *store);
ERR_RESULT saved_disk_delete(struct saved_disk *disk, unsigned index);
/* The layer of this path with so many below it, of which the disk is told if that is wanted. */
ERR_RESULT saved_disk_merge(struct saved_disk *disk, const char *newest, unsigned count,
                            bool is_told);
/* The disk goes on where it was then. */
ERR_RESULT saved_disk_restore(struct saved_disk *disk, unsigned index);

/* Does every snapshot that is left show what it has to? */
ERR_RESULT saved_disk_check(const struct saved_disk *disk);

#endif
