/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_packer.h - writes clusters that are packed already, one behind the other.
 *
 *   host clusters    |            |            |            |
 *   streams          |aaaaaabb|cccccccccdddd|e ...
 *
 * A stream begins at a sector and may reach into the next host cluster; each host cluster is
 * counted once for every stream that touches it. One packer an image; other writes to the image
 * may go on meanwhile. Thread: any, one at a time.
 */
#ifndef STORAGE_QCOW_QCOW_PACKER_H
#define STORAGE_QCOW_QCOW_PACKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "storage/block.h"

/* Room in the host cluster that was last used: [at, end). Zeroed: none. */
struct qcow_packer {
    uint64_t at;
    uint64_t end;
};

/* Is a stream of this length shorter in the image than the cluster? */
bool qcow_packer_is_worth(struct block *block, size_t len);

/* The guest cluster at `offset` of a writable qcow2 image becomes the packed stream, which was made
 * with the image's compression and is worth it. As durable as any write. */
ERR_RESULT qcow_packer_write(struct qcow_packer *packer, struct block *block, uint64_t offset,
                             const void *data, size_t len);

#endif
