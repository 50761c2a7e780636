/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io_vector.h - a part of somebody's scattered buffer, as a value.
 *
 * The memory stays the caller's; a vector only points into it. Thread: any.
 */
#ifndef STORAGE_IO_VECTOR_H
#define STORAGE_IO_VECTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/limits.h"

/* One guest request with a copied head and tail around it. */
#define IO_VECTOR_MAX (VIRTIO_REQUEST_IOVS + 2u)

struct io_vector {
    struct iovec iovs[IO_VECTOR_MAX];
    int count;
};

uint64_t io_vector_bytes(const struct iovec *iovs, int iov_count);

/* Appends [skip, skip + len) of the buffers, which the caller knows to be inside them. */
void io_vector_append_slice(struct io_vector *vector, const struct iovec *iovs, int iov_count,
                            uint64_t skip, uint64_t len);
/* Appends one buffer; nothing when len is 0. */
void io_vector_append(struct io_vector *vector, void *data, size_t len);

/* Drops the first `len` bytes, which have been transferred. */
void io_vector_advance(struct io_vector *vector, size_t len);

bool io_vector_is_zero(const struct iovec *iovs, int iov_count);
void io_vector_zero(const struct iovec *iovs, int iov_count);
/* Fills the buffers with the io_vector_bytes() bytes at `data`, and the reverse. */
void io_vector_scatter(const struct iovec *iovs, int iov_count, const void *data);
void io_vector_gather(const struct iovec *iovs, int iov_count, void *out_data);

#endif
