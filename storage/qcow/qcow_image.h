/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_image.h - a disk in a qcow2 file.
 *
 * Thread: any, several at once, but for open, seal and close, which want to be alone.
 */
#ifndef STORAGE_QCOW_QCOW_IMAGE_H
#define STORAGE_QCOW_QCOW_IMAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "storage/block.h"

struct host_file;
struct qcow_header;

/* Takes the file, also on failure. The backing block belongs to the image from
 * qcow_image_set_backing on; an image whose header names one is useless until then. */
ERR_RESULT qcow_image_open(struct host_file *file, bool is_read_only, struct block **out_block);
void qcow_image_set_backing(struct block *block, struct block *backing);

/* Takes it out again; NULL when there is none. What the image does not hold reads as zeros then. */
struct block *qcow_image_take_backing(struct block *block);

/* From now on the disk is as an internal snapshot, by id, else by name, holds it. The image is open
 * for reading only, and not used yet; after an error only good for closing. ERR_NOT_FOUND: there is
 * none. */
ERR_RESULT qcow_image_show_snapshot(struct block *block, const char *id_or_name);

const struct qcow_header *qcow_image_header(struct block *block);

/* Makes a writable image clean, durable and read-only, and the reverse. No request is running. */
ERR_RESULT qcow_image_seal(struct block *block);
void qcow_image_unseal(struct block *block);

#endif
