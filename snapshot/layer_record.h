/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_record.h - who may need the layers of a disk: the file STEM.stores beside its images.
 *
 * Layers are shared by snapshots in any number of stores, and only who knows all of them may remove
 * one. So whoever makes a layer needed writes itself down first: a store before the layer is sealed
 * for a snapshot in it. A layer counts as known if that was done when it was sealed. Then every
 * snapshot that needs it is in a store that the record names, because what stands on the layer was
 * sealed later; a layer that is not known is never removed, nor what it stands on, so a record that
 * is lost, or an old one that is put back, costs space and nothing else.
 *
 * STEM.stores.lock is held shared by whoever makes layers needed, from before it writes that down
 * until it is visible to all (a manifest, an overlay in the folder), and exclusively by whoever
 * removes layers. Thread: any; blocks.
 */
#ifndef SNAPSHOT_LAYER_RECORD_H
#define SNAPSHOT_LAYER_RECORD_H

#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "proto/snapshot.pb-c.h"
#include "snapshot/store_id.h"

#define LAYER_RECORD_FORMAT 1u

enum layer_lock {
    LAYER_LOCK_NEED,       /* shared; waits */
    LAYER_LOCK_REMOVE,     /* waits until nobody has it */
    LAYER_LOCK_TRY_REMOVE, /* ERR_DENIED when somebody has it */
};

/* Of the disk that the image at `image` belongs to. Closing the fd gives it up. */
ERR_RESULT layer_lock_take(const char *image, enum layer_lock how, int *out_fd);

/* What is written down; all but the store may be left out. */
struct layer_need {
    const char *store_path; /* NULL: none */
    struct store_id store_id;
    const char *machine;      /* NULL: none */
    const char *image_folder; /* another one, with images that stand on these; NULL: none */
    bool is_sealing;          /* the layer `number` is about to be sealed for this store */
    unsigned number;
};

/* Durable when it returns. `lock_fd` is held shared. A record that is damaged is begun anew: what
 * it knew is not known from then on. ERR_INCOMPATIBLE: a newer version wrote it. */
ERR_RESULT layer_record_note(const char *image, int lock_fd, const struct layer_need *need);

/* NULL: there is none. Free with layer_record_free. */
ERR_RESULT layer_record_read(const char *image, Ferry__LayerRecord **out_record);
void layer_record_free(Ferry__LayerRecord *record); /* accepts NULL */
DEFINE_CLEANUP(layer_record, Ferry__LayerRecord, layer_record_free)

bool layer_record_knows(const Ferry__LayerRecord *record, unsigned number);

/* Strikes out a store or a folder of images by its path; ERR_NOT_FOUND: it is not there. `lock_fd`
 * is held exclusively. */
ERR_RESULT layer_record_forget(const char *image, int lock_fd, const char *path);

/* Exactly the bytes of a file. `name` heads the errors. */
ERR_RESULT layer_record_parse(const char *name, const void *data, size_t len,
                              Ferry__LayerRecord **out_record);

#endif
