/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel_image_fuzz.c - any bytes as a kernel: refused, or segments that lie within the file.
 */
#include "base/assert.h"
#include "base/checked_math.h"
#include "vmm/boot/kernel_image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct kernel_image image;
    struct err *err = kernel_image_parse(data, len, &image);

    for (size_t i = 0; err == NULL && i < image.segment_count; i++) {
        const struct kernel_segment *segment = &image.segments[i];
        ASSERT(range_is_within(segment->file_offset, segment->file_bytes, len));
    }
    if (err == NULL && image.protocol == KERNEL_LINUX64)
        ASSERT(range_is_within(image.setup_offset, image.setup_bytes, len));
    err_free(err);
    return 0;
}
