/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_file.h - the host's side of an image: one file, and what can be done to it.
 *
 * Everything that an image format does to the host goes through here, so that tests can record,
 * cut and fail it. Thread: any, several at once; calls may block.
 */
#ifndef STORAGE_HOST_FILE_H
#define STORAGE_HOST_FILE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"
#include "storage/io_vector.h"

struct host_file;
struct write_range;
struct write_ranges;

/* What the host wants of I/O that goes past its page cache: addresses are multiples of `memory`,
 * offsets and lengths (of each piece) of `offset`, both powers of two. 1: it does not matter. */
struct host_file_alignment {
    uint32_t memory;
    uint32_t offset;
};

/* The way round the operations, for who starts I/O on the descriptor itself. Every such write lies
 * between host_file_begin_write and host_file_end_write. */
struct host_file_door {
    int fd;
    struct host_file_alignment alignment;
    struct write_ranges *ranges; /* NULL: nobody changes parts of blocks */
};

struct host_file_ops {
    const char *name;
    struct err *(*read)(struct host_file *file, const struct io_vector *to, uint64_t offset);
    struct err *(*write)(struct host_file *file, const struct io_vector *from, uint64_t offset);
    struct err *(*sync)(struct host_file *file);
    struct err *(*punch)(struct host_file *file, uint64_t offset, uint64_t len);
    struct err *(*allocate)(struct host_file *file, uint64_t offset, uint64_t len);
    struct err *(*truncate)(struct host_file *file, uint64_t bytes);
    struct err *(*size)(struct host_file *file, uint64_t *out_bytes);
    void (*destroy)(struct host_file *file);
};

struct host_file {
    const struct host_file_ops *ops;
    const char *path;                  /* for messages; lives as long as the file */
    const struct host_file_door *door; /* NULL: there is none, only the operations */
    /* Set once by the first sync that fails, read before each: relaxed, it publishes nothing. */
    atomic_bool has_lost_writes;
};

/* The page cache's, or past it where the file system can: alignment is what statx says
 * (STATX_DIOALIGN); a file system that does not say is used through its page cache. */
enum host_file_cache {
    HOST_FILE_CACHE_WRITEBACK,
    HOST_FILE_CACHE_NONE,
    HOST_FILE_CACHE_NONE_LATER, /* a file that is only read: as NONE after host_file_go_direct */
};

/* Takes the fd (also on failure) of a regular file or block device. */
ERR_RESULT host_file_open_fd(int fd, const char *path, enum host_file_cache cache,
                             struct host_file **out_file);
static inline ERR_RESULT host_file_from_fd(int fd, const char *path, struct host_file **out_file)
{
    return host_file_open_fd(fd, path, HOST_FILE_CACHE_WRITEBACK, out_file);
}
/* No request is running. Block devices are past the cache from the start: several hosts may have
 * them, and none would see that another wrote. */
void host_file_go_direct(struct host_file *file);
void host_file_destroy(struct host_file *file); /* closes; accepts NULL */

/* All of the vector; what lies past the end of the file reads as zeros. */
ERR_RESULT host_file_read(struct host_file *file, const struct io_vector *to, uint64_t offset);
ERR_RESULT host_file_write(struct host_file *file, const struct io_vector *from, uint64_t offset);
ERR_RESULT host_file_read_bytes(struct host_file *file, void *out_data, size_t len,
                                uint64_t offset);
ERR_RESULT host_file_write_bytes(struct host_file *file, const void *data, size_t len,
                                 uint64_t offset);
ERR_RESULT host_file_write_zeroes(struct host_file *file, uint64_t offset, uint64_t len);

/* A write through the door of these bytes, whole blocks: false when it would have to wait. */
bool host_file_begin_write(struct host_file *file, struct write_range *range);
void host_file_end_write(struct host_file *file, struct write_range *range);
bool host_file_is_aligned(struct host_file_alignment alignment, const struct iovec *iovs,
                          int iov_count, uint64_t offset);

/* A barrier: what was written before is durable when it succeeds. Once it has failed it fails for
 * ever, because the kernel may have dropped the pages that it could not write. */
ERR_RESULT host_file_sync(struct host_file *file);

/* Makes every later sync fail: what the file holds is unknown. */
void host_file_give_up(struct host_file *file);

/* Gives the range back to the host file system, if that can; it reads as zeros then, or as before
 * where it can not. The size stays. */
ERR_RESULT host_file_punch(struct host_file *file, uint64_t offset, uint64_t len);
/* Reserves space for the range, if the host file system can; neither content nor size change. */
ERR_RESULT host_file_allocate(struct host_file *file, uint64_t offset, uint64_t len);
ERR_RESULT host_file_truncate(struct host_file *file, uint64_t bytes);
ERR_RESULT host_file_size(struct host_file *file, uint64_t *out_bytes);

#endif
