/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io_vector.c - see io_vector.h.
 */
#include "storage/io_vector.h"

#include <string.h>

#include "base/assert.h"
#include "base/checked_math.h"

uint64_t io_vector_bytes(const struct iovec *iovs, int iov_count)
{
    uint64_t bytes = 0;

    for (int i = 0; i < iov_count; i++)
        bytes += iovs[i].iov_len;
    return bytes;
}

void io_vector_append(struct io_vector *vector, void *data, size_t len)
{
    if (len == 0)
        return;

    ASSERT(vector->count < (int)IO_VECTOR_MAX);
    vector->iovs[vector->count++] = (struct iovec){data, len};
}

void io_vector_append_slice(struct io_vector *vector, const struct iovec *iovs, int iov_count,
                            uint64_t skip, uint64_t len)
{
    for (int i = 0; i < iov_count && len > 0; i++) {
        if (skip >= iovs[i].iov_len) {
            skip -= iovs[i].iov_len;
            continue;
        }
        size_t part = (size_t)MIN((uint64_t)iovs[i].iov_len - skip, len);
        io_vector_append(vector, (uint8_t *)iovs[i].iov_base + skip, part);
        skip = 0;
        len -= part;
    }
    ASSERT(len == 0);
}

void io_vector_advance(struct io_vector *vector, size_t len)
{
    int used = 0;

    while (used < vector->count && len >= vector->iovs[used].iov_len)
        len -= vector->iovs[used++].iov_len;
    vector->count -= used;
    memmove(vector->iovs, vector->iovs + used, (size_t)vector->count * sizeof(vector->iovs[0]));
    if (len > 0) {
        ASSERT(vector->count > 0);
        vector->iovs[0].iov_base = (uint8_t *)vector->iovs[0].iov_base + len;
        vector->iovs[0].iov_len -= len;
    }
}

/* Each byte is compared with the one before it, by the C library. */
static bool is_zero(const uint8_t *data, size_t len)
{
    return len == 0 || (data[0] == 0 && memcmp(data, data + 1, len - 1) == 0);
}

bool io_vector_is_zero(const struct iovec *iovs, int iov_count)
{
    for (int i = 0; i < iov_count; i++)
        if (!is_zero(iovs[i].iov_base, iovs[i].iov_len))
            return false;
    return true;
}

void io_vector_zero(const struct iovec *iovs, int iov_count)
{
    for (int i = 0; i < iov_count; i++)
        memset(iovs[i].iov_base, 0, iovs[i].iov_len);
}

void io_vector_scatter(const struct iovec *iovs, int iov_count, const void *data)
{
    const uint8_t *from = data;

    for (int i = 0; i < iov_count; i++) {
        memcpy(iovs[i].iov_base, from, iovs[i].iov_len);
        from += iovs[i].iov_len;
    }
}

void io_vector_gather(const struct iovec *iovs, int iov_count, void *out_data)
{
    uint8_t *to = out_data;

    for (int i = 0; i < iov_count; i++) {
        memcpy(to, iovs[i].iov_base, iovs[i].iov_len);
        to += iovs[i].iov_len;
    }
}
