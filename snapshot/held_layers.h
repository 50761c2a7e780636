/* SPDX-License-Identifier: Apache-2.0 */
/*
 * held_layers.h - the layers of some disks, from before it is written down that they are needed
 * until everybody can see why: nobody removes one meanwhile (layer_record.h).
 *
 * Of each disk, and of whatever its layers stand on, every numbered image may be removed by
 * somebody, so all their records are told. Where the records of other disks may not be written,
 * those disks are not ours to look after, and their owner has to know. Thread: any; blocks.
 */
#ifndef SNAPSHOT_HELD_LAYERS_H
#define SNAPSHOT_HELD_LAYERS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"
#include "base/err.h"

struct held_layers;
struct snapshot_store;

struct held_disk {
    const char *path;
    const char *format;
    bool is_read_only; /* nothing is sealed, and no overlay made */
    bool is_sealing;   /* the image is about to be sealed for a snapshot in the store */
    /* Where the overlay goes; NULL: beside the image, whose folder has to be writable then. */
    const char *overlay_folder;
};

struct held_purpose {
    const struct snapshot_store *store; /* NULL: none, images alone need the layers */
    const char *machine;                /* whose snapshots these are */
    /* Where backing files may lie, beside the folder of the image. */
    const char *const *folders;
    size_t folder_count;
    bool is_saving; /* else what the store holds is used, and it may be one that is read-only */
};

ERR_RESULT held_layers_take(struct held_purpose purpose, const struct held_disk *disks,
                            size_t count, struct held_layers **out_held);
void held_layers_release(struct held_layers *held); /* accepts NULL */
DEFINE_CLEANUP(held_layers, struct held_layers, held_layers_release)

#endif
