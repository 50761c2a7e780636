/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_backing.h - says in an image's header which image it is based on.
 *
 * Changes the header alone: what the image shows may be something else afterwards. A power cut
 * leaves the old header or the new one. Thread: any that may block.
 */
#ifndef STORAGE_QCOW_QCOW_BACKING_H
#define STORAGE_QCOW_QCOW_BACKING_H

#include "base/err.h"

struct host_file;

/* `name` NULL: on none. Durable when it returns. An image that is open does not notice. */
ERR_RESULT qcow_backing_set(struct host_file *file, const char *name, const char *format);

#endif
