/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_file.h - makes an image under its final name only when it is complete.
 *
 * It grows under a name of its own beside the final one, which a failure or Ctrl-C removes again.
 * What it replaces is a file that nobody uses: its locks are held until then.
 * Thread: loop only.
 */
#ifndef TOOLS_VM_DISK_IMAGE_FILE_H
#define TOOLS_VM_DISK_IMAGE_FILE_H

#include <stdbool.h>

#include "base/err.h"
#include "storage/image_layer.h"
#include "storage/qcow/qcow_create.h"

struct image_file {
    char *path;  /* owned; the final one, behind symbolic links if it replaces something */
    char *draft; /* owned; NULL once it has been published or removed */
    int old_fd;  /* owned; what it replaces, -1: nothing. Of a file with a path */
};

/* Is `format` one that there is? */
ERR_RESULT image_format_check(const char *format, bool *out_is_qcow);

/* An empty image: qcow2 by the options, or raw of options->virtual_bytes (preallocated likewise).
 * ERR_STATE when the final name is taken and may not be replaced: unless that was said, when it is
 * sealed, in use, or no file at all. `reader_fd` is one through which the caller reads what may be
 * the file that is replaced, -1: it reads none. */
ERR_RESULT image_file_create(const char *path, bool may_replace, int reader_fd, const char *format,
                             const struct qcow_create_options *options,
                             struct image_file *out_file);

/* Is this open file the one that will be replaced? */
bool image_file_is_old(const struct image_file *file, int fd);

/* Opens the draft for writing. */
ERR_RESULT image_file_open(const struct image_file *file, const char *format,
                           struct image_layer *out_layer);

/* Gives it its final name, durably. */
ERR_RESULT image_file_publish(struct image_file *file);

/* Removes the draft, if it was not published. Accepts a zeroed one. */
void image_file_finish(struct image_file *file);

#endif
