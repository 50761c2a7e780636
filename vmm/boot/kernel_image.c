/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel_image.c - tells kernel files apart.
 */
#include "vmm/boot/kernel_image.h"

#include <stdbool.h>
#include <string.h>

#include "base/checked_math.h"
#include "base/limits.h"

static bool has_bytes(const uint8_t *data, size_t len, size_t at, const char *bytes, size_t count)
{
    return range_is_within(at, count, len) && memcmp(data + at, bytes, count) == 0;
}

/* Segments lie in the file, above the first MiB, and do not wrap. */
static struct err *check_segments(const struct kernel_image *image, size_t len)
{
    for (size_t i = 0; i < image->segment_count; i++) {
        const struct kernel_segment *segment = &image->segments[i];
        uint64_t end;
        if (!range_is_within(segment->file_offset, segment->file_bytes, len))
            return err_new(ERR_INVALID, "segment %zu lies outside of the file; it is truncated", i);
        if (segment->memory_bytes < segment->file_bytes ||
            segment->memory_bytes > MACHINE_FILE_BYTES_MAX ||
            !checked_add(segment->address, segment->memory_bytes, &end))
            return err_new(ERR_INVALID, "segment %zu has impossible sizes", i);
        if (segment->address < KERNEL_ADDRESS_MIN)
            return err_new(ERR_INCOMPATIBLE,
                           "segment %zu is loaded at 0x%llx, below 1 MiB; link the kernel higher",
                           i, (unsigned long long)segment->address);
    }
    return NULL;
}

struct err *kernel_image_parse(const uint8_t *data, size_t len, struct kernel_image *out_image)
{
    struct kernel_image image = {0};

    if (has_bytes(data, len, 0, "\177ELF", 4))
        TRY(elf_pvh_parse(data, len, &image));
    else if (has_bytes(data, len, 0x202, "HdrS", 4))
        TRY(bzimage_parse(data, len, &image));
    else if (has_bytes(data, len, 0, "\x1f\x8b", 2))
        return err_new(ERR_INCOMPATIBLE, "it is compressed with gzip; unpack it first");
    else
        return err_new(ERR_INCOMPATIBLE,
                       "it is neither a bzImage (/boot/vmlinuz-...) nor an ELF file");

    TRY(check_segments(&image, len));
    *out_image = image;
    return NULL;
}
