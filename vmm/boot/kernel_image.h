/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel_image.h - what has to be copied where to start a kernel file: a Linux bzImage or an ELF
 * file with a PVH entry. Parsing copies nothing and trusts nothing. Thread: any.
 */
#ifndef VMM_BOOT_KERNEL_IMAGE_H
#define VMM_BOOT_KERNEL_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define KERNEL_SEGMENTS_MAX 16u

/* Kernels are loaded from here on: what is below belongs to tables and the boot protocol. */
#define KERNEL_ADDRESS_MIN 0x100000u

enum kernel_protocol {
    KERNEL_LINUX64, /* the 64-bit boot protocol: long mode, boot_params */
    KERNEL_PVH,     /* 32-bit protected mode, start info */
};

struct kernel_segment {
    uint64_t file_offset;
    uint64_t file_bytes; /* inside the file */
    uint64_t address;
    uint64_t memory_bytes; /* at least file_bytes; the rest is zero */
};

struct kernel_image {
    enum kernel_protocol protocol;
    uint64_t entry;
    struct kernel_segment segments[KERNEL_SEGMENTS_MAX];
    size_t segment_count;
    uint64_t initrd_address_max; /* last byte that an initrd may occupy */
    uint32_t command_line_max;   /* bytes, without the terminator */
    uint64_t setup_offset;       /* of the setup header in the file; KERNEL_LINUX64 only */
    uint64_t setup_bytes;
};

/* ERR_INVALID or ERR_INCOMPATIBLE say what is wrong with the file. */
ERR_RESULT kernel_image_parse(const uint8_t *data, size_t len, struct kernel_image *out_image);

/* The two kinds, each told by its magic. */
ERR_RESULT bzimage_parse(const uint8_t *data, size_t len, struct kernel_image *out_image);
ERR_RESULT elf_pvh_parse(const uint8_t *data, size_t len, struct kernel_image *out_image);

#endif
