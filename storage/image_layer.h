/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_layer.h - one file of a disk: opened, locked, sealed.
 */
#ifndef STORAGE_IMAGE_LAYER_H
#define STORAGE_IMAGE_LAYER_H

#include <stdbool.h>

#include "base/err.h"
#include "storage/block.h"
#include "storage/disk_image.h"
#include "storage/host_file.h"

enum image_layer_locking { IMAGE_LAYER_UNLOCKED, IMAGE_LAYER_LOCKED };

/* How the file is used, whatever is in it. */
struct image_layer_use {
    enum image_layer_locking locking;
    enum host_file_cache cache;
};

struct image_layer {
    struct block *block; /* owned; a qcow2 image still wants its backing */
    const char *path;    /* the block's, valid as long as that is open */
    int fd;              /* likewise */
    bool is_qcow;
};

ERR_RESULT image_layer_open(const char *path, const char *format, enum disk_image_access access,
                            struct image_layer_use use, struct image_layer *out_layer);

/* Opens the file: ERR_NOT_FOUND, ERR_DENIED, ERR_STATE when it is sealed and the caller may not
 * write it for that. */
ERR_RESULT image_layer_open_file(const char *path, enum disk_image_access access, int *out_fd);

/* The same for a file that is open already, which is taken, also on failure. */
ERR_RESULT image_layer_from_fd(int fd, const char *path, const char *format,
                               enum disk_image_access access, struct image_layer_use use,
                               struct image_layer *out_layer);

/* Of a writable layer whose block has its backing, if it wants one: see qcow_image_resize and
 * raw_image_resize. No request is running. */
ERR_RESULT image_layer_resize(const struct image_layer *layer, uint64_t virtual_bytes);

/* The locks of a file that is used outside of a disk: ERR_STATE when it is sealed and to be
 * written, ERR_NOT_FOUND when it lost its name before it was locked to be written. */
ERR_RESULT image_layer_lock(int fd, const char *path, enum disk_image_access access);

/* Of an open file: ERR_STATE when nobody is to write it any more. */
ERR_RESULT image_layer_check_not_sealed(int fd, const char *path);

/* Could it be opened for writing? Says why not. */
ERR_RESULT image_layer_check_writable(const struct image_layer *layer, const char *path);

/* ERR_STATE when it may still be written by somebody. */
ERR_RESULT image_layer_check_sealed(const struct image_layer *layer);

/* Clean, durable, no write permission, reader's locks; or, on failure, as it was. */
ERR_RESULT image_layer_seal(const struct image_layer *layer, const char *path);

#endif
