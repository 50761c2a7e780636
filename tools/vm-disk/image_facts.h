/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_facts.h - what an image says of itself, without opening it as a disk: it may be in use, or
 * one that Ferry refuses to run on.
 *
 * Thread: loop only.
 */
#ifndef TOOLS_VM_DISK_IMAGE_FACTS_H
#define TOOLS_VM_DISK_IMAGE_FACTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "storage/image_folders.h"
#include "storage/qcow/qcow_header.h"

struct image_facts {
    char *path;             /* owned */
    uint64_t device, inode; /* of the file */
    bool is_qcow;
    struct qcow_header header; /* of a qcow2 image */
    uint64_t virtual_bytes;
    uint64_t file_bytes;
    uint64_t host_bytes; /* that it takes on the host */
    bool is_sealed;      /* nobody may write it */
    bool is_written;     /* somebody has it open for writing */
};

struct image_chain_facts {
    struct image_facts *layers; /* owned; the newest first */
    size_t count;
};

/* The image and everything below it. An error names the layer; what was found above it stays in
 * *out_chain, which the caller finishes in any case. */
ERR_RESULT image_chain_look(const char *path, const char *format,
                            const struct image_folders *folders,
                            struct image_chain_facts *out_chain);
void image_chain_facts_finish(struct image_chain_facts *chain);

#endif
