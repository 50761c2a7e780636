/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_source.h - an image that a command reads, with everything below it.
 *
 * Thread: loop only.
 */
#ifndef TOOLS_VM_DISK_DISK_SOURCE_H
#define TOOLS_VM_DISK_DISK_SOURCE_H

#include <stdbool.h>

#include "base/err.h"
#include "base/option_table.h"
#include "storage/image_chain.h"

/* What the user says of an image. */
struct disk_source {
    const char *format;
    struct option_list folders;
    bool is_shared;
    const char *snapshot; /* NULL: the disk as it is */
};

#define DISK_SOURCE_ROWS(type, field)                                                              \
    OPTION_TEXT("format", 'f', type, field.format, "FORMAT", "qcow2",                              \
                "of the image, qcow2 or raw"),                                                     \
        OPTION_LIST("image-folder", 0, type, field.folders, "FOLDER",                              \
                    "backing images may lie here, too; may be repeated"),                          \
        OPTION_FLAG("share", 'U', type, field.is_shared,                                           \
                    "read it although a machine may be writing to it; what is read may be torn"),  \
        OPTION_TEXT("snapshot", 0, type, field.snapshot, "NAME", NULL,                             \
                    "read what this snapshot in the image holds (its number or name, or "          \
                    "id=NUMBER, name=NAME)")

/* ERR_DENIED, with what to do, when another process has it open for writing. */
ERR_RESULT disk_source_open(const struct disk_source *source, const char *path,
                            enum disk_image_access access, struct image_chain *out_chain);

/* Closes a chain, as a cleanup does. For those that were written, block_close tells more. */
void disk_chain_close(struct image_chain *chain); /* accepts a zeroed one */

#endif
