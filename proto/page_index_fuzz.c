/* SPDX-License-Identifier: Apache-2.0 */
/*
 * page_index_fuzz.c - any file as a page index whose head is vouched for, as by a forged manifest.
 */
#include <sys/mman.h>
#include <xxhash.h>

#include "base/cleanup.h"
#include "proto/page_index.h"

#define HEAD_BYTES 4096u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len < HEAD_BYTES)
        return 0;
    CLEANUP(cleanup_fd) int fd = memfd_create("index", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, len) != (ssize_t)len)
        return 0;

    struct page_index *index;
    struct err *err = page_index_open(fd, "fuzz", XXH3_64bits(data, HEAD_BYTES), &index);
    if (err != NULL) {
        err_free(err);
        return 0;
    }
    for (uint64_t page = 0; page < page_index_page_count(index); page++) {
        struct page_location location;
        err_free(page_index_find(index, page, &location));
    }
    page_index_close(index);
    return 0;
}
