/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_folders.h - the folders that backing files may come from.
 *
 * The name of a backing file stands in an image, and who wrote the image is not always known. So a
 * name is only followed inside the folder of the disk's own image and inside those that the
 * operator named; symbolic links in them may not lead out. What is opened is a regular file, for
 * reading. Thread: any.
 */
#ifndef STORAGE_IMAGE_FOLDERS_H
#define STORAGE_IMAGE_FOLDERS_H

#include <stddef.h>

#include "base/err.h"

struct image_folders;

/* The folder of the image at `path` and the `count` named ones, which must exist. */
ERR_RESULT image_folders_create(const char *path, const char *const *named, size_t count,
                                struct image_folders **out_folders);
void image_folders_destroy(struct image_folders *folders); /* accepts NULL */

/* Opens the backing file that the image at image_path names; close *out_fd, free() *out_path, which
 * is absolute. ERR_DENIED: it is not in these folders. */
ERR_RESULT image_folders_open(const struct image_folders *folders, const char *image_path,
                              const char *backing_name, int *out_fd, char **out_path);

#endif
