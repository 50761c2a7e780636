/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_header_fuzz.c - a whole hostile image: header, tables, compressed clusters. What is accepted
 * is read and, where that is allowed, written.
 * Tested by: replaying tests/fuzz/corpus/qcow_header.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/checked_math.h"
#include "storage/host_file.h"
#include "storage/qcow/qcow_image.h"
#include "storage/testing/host_file_fake.h"

#define READ_BYTES 4096u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(struct block *disk, uint64_t offset)
{
    static uint8_t bytes[READ_BYTES];
    size_t len = (size_t)MIN(READ_BYTES, disk->virtual_bytes - offset);
    struct iovec iov = {bytes, len};

    err_free(block_read(disk, &iov, 1, offset));
    if (disk->is_read_only)
        return;
    memset(bytes, 0x55, sizeof(bytes));
    err_free(block_write(disk, &iov, 1, offset));
    err_free(block_write_zeroes(disk, offset, len, true));
    err_free(block_discard(disk, offset, len));
    err_free(block_flush(disk));
}

static void try_image(const uint8_t *data, size_t size, bool is_read_only)
{
    struct host_file *file = NULL;
    struct block *disk = NULL;
    struct err *err = host_file_fake_create(data, size, &file);

    if (err == NULL)
        err = qcow_image_open(file, is_read_only, &disk);
    if (err != NULL) {
        err_free(err);
        return;
    }
    /* From the start, the middle and the end: each goes through other tables. */
    for (unsigned i = 0; i < 8 && disk->virtual_bytes > 0; i++)
        use(disk, align_down(disk->virtual_bytes / 8 * i, 512));
    if (disk->virtual_bytes > 0)
        use(disk, disk->virtual_bytes - 512);
    err_free(block_close(disk));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    try_image(data, size, true);
    try_image(data, size, false);
    return 0;
}
