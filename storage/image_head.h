/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_head.h - which file an image says that it stands on, and nothing else of it.
 *
 * For whoever has to know what an image needs without using it: also images that this version can
 * not read, or that are in use, say it. Files that are no images are told apart from such that do
 * not make sense. Thread: any.
 */
#ifndef STORAGE_IMAGE_HEAD_H
#define STORAGE_IMAGE_HEAD_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define IMAGE_HEAD_BYTES 4096u

enum image_head_kind {
    IMAGE_HEAD_OTHER, /* no qcow image: it stands on nothing */
    IMAGE_HEAD_BLANK, /* empty, or begins with zeros only: an image is not complete before */
    IMAGE_HEAD_QCOW,
    IMAGE_HEAD_BROKEN, /* begins like one, but no program could open it */
};

struct image_head {
    enum image_head_kind kind;
    uint64_t backing_offset; /* of the name in the file; 0: it stands on nothing */
    uint32_t backing_bytes;
    char backing_name[1024]; /* empty: none; only by image_head_read */
    char backing_format[16]; /* empty: not said */
};

/* `data` is the start of the file: IMAGE_HEAD_BYTES, or all of it if it is shorter. */
void image_head_parse(const void *data, size_t len, struct image_head *out_head);

/* An error means that the file could not be read. */
ERR_RESULT image_head_read(int fd, const char *path, struct image_head *out_head);

#endif
