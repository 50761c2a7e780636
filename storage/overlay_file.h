/* SPDX-License-Identifier: Apache-2.0 */
/*
 * overlay_file.h - the files of a disk's layers: web.img, web.000001.qcow2, web.000002.qcow2 ...
 */
#ifndef STORAGE_OVERLAY_FILE_H
#define STORAGE_OVERLAY_FILE_H

#include <stdint.h>

#include "base/err.h"

/* The path after the last overlay that exists, in the folder of `path`; free() it. */
ERR_RESULT overlay_file_next(const char *path, char **out_path);

/* The last overlay that exists, NULL when there is none; free() it. */
ERR_RESULT overlay_file_newest(const char *path, char **out_path);

/* "web.backup.changes" of web.img, and of each overlay of it, for the suffix "backup.changes";
 * free() it. */
ERR_RESULT overlay_file_sibling(const char *path, const char *suffix, char **out_path);

/* What a name in a disk's folder is to the disk. */
enum overlay_file_kind {
    OVERLAY_FILE_OTHER,
    OVERLAY_FILE_BASE,    /* of this disk, without a number: an image that Ferry did not make */
    OVERLAY_FILE_OVERLAY, /* numbered */
    OVERLAY_FILE_MERGING, /* what layers are merged into, until it takes the place of one */
};

#define OVERLAY_FILE_MERGING_SUFFIX ".merging"

/* `path` is any image of the disk. *out_number is 0 where there is none. */
enum overlay_file_kind overlay_file_look(const char *path, const char *name, unsigned *out_number);

/* A new file, empty as an overlay, durable with its name. */
ERR_RESULT overlay_file_create(const char *path, const char *backing_path,
                               const char *backing_format, uint64_t virtual_bytes);

/* How an image at `path` names a backing file: without a folder when both are in the same, so that
 * they can move together, else by its real path. free() it. */
ERR_RESULT overlay_file_backing_name(const char *path, const char *backing_path, char **out_name);

struct overlay_content {
    const char *backing_name; /* as it is to stand in the image */
    const char *backing_format;
    uint64_t virtual_bytes;
};

/* Into an empty file; takes the fd. Durable, but for the file's name. */
ERR_RESULT overlay_file_fill(int fd, const char *path, const struct overlay_content *content);

#endif
