/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_head_fuzz.c - any bytes as the start of a file, of which its backing file is wanted.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/cleanup.h"
#include "storage/image_head.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct image_head head;
    CLEANUP(cleanup_fd) int fd = memfd_create("fuzz", MFD_CLOEXEC);

    image_head_parse(data, len < IMAGE_HEAD_BYTES ? len : IMAGE_HEAD_BYTES, &head);
    if (fd < 0 || write(fd, data, len) != (ssize_t)len)
        return 0;
    struct err *err = image_head_read(fd, "fuzz", &head);
    if (err == NULL) {
        ASSERT(strlen(head.backing_name) < sizeof(head.backing_name));
        ASSERT(strlen(head.backing_format) < sizeof(head.backing_format));
    }
    err_free(err);
    return 0;
}
