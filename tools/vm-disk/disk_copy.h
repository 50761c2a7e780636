/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_copy.h - copies what a chain of images shows into a new image, and leaves out what is zeros.
 *
 * Thread: loop only; has worker threads of its own.
 */
#ifndef TOOLS_VM_DISK_DISK_COPY_H
#define TOOLS_VM_DISK_DISK_COPY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "storage/block.h"
#include "storage/image_map.h"
#include "storage/qcow/qcow_header.h"

struct disk_progress;

#define DISK_COPY_THREADS_MAX 64u

struct disk_copy {
    const struct image_chain *source;
    struct block *target; /* empty, of the same size: reads as zeros */
    /* What the target allocates at once, a power of two from 512 bytes to 2 MiB; to pack, a
     * cluster.
     */
    uint64_t unit_bytes;
    bool is_packing; /* the target is a qcow2 image */
    enum qcow_compression compression;
    unsigned thread_count;
    struct disk_progress *progress;
};

struct disk_copy_result {
    uint64_t data_bytes;   /* that are not zeros, in units */
    uint64_t packed_bytes; /* of these, compressed ... */
    uint64_t stream_bytes; /* ... to so many */
};

/* ERR_CANCELLED when the user wants it to end. */
ERR_RESULT disk_copy_run(const struct disk_copy *copy, struct disk_copy_result *out_result);

#endif
