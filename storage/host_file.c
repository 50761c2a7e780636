/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_file.c - see host_file.h; here the real one, over a file descriptor.
 */
#include "storage/host_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/checked_math.h"
#include "base/cleanup.h"

struct fd_file {
    struct host_file base;
    int fd;      /* owned */
    char path[]; /* base.path points here */
};

struct err *host_file_read(struct host_file *file, const struct io_vector *to, uint64_t offset)
{
    return file->ops->read(file, to, offset);
}

struct err *host_file_write(struct host_file *file, const struct io_vector *from, uint64_t offset)
{
    return file->ops->write(file, from, offset);
}

struct err *host_file_read_bytes(struct host_file *file, void *out_data, size_t len,
                                 uint64_t offset)
{
    struct io_vector vector = {.count = 0};

    io_vector_append(&vector, out_data, len);
    return file->ops->read(file, &vector, offset);
}

struct err *host_file_write_bytes(struct host_file *file, const void *data, size_t len,
                                  uint64_t offset)
{
    struct io_vector vector = {.count = 0};

    io_vector_append(&vector, (void *)(uintptr_t)data, len);
    return file->ops->write(file, &vector, offset);
}

struct err *host_file_write_zeroes(struct host_file *file, uint64_t offset, uint64_t len)
{
    static uint8_t zeroes[64 * KIB]; /* only ever read */

    while (len > 0) {
        struct io_vector vector = {.count = 0};
        uint64_t bytes = 0;
        while (vector.count < 16 && bytes < len) {
            uint64_t part = MIN(sizeof(zeroes), len - bytes);
            io_vector_append(&vector, zeroes, part);
            bytes += part;
        }
        TRY(file->ops->write(file, &vector, offset));
        offset += bytes;
        len -= bytes;
    }
    return NULL;
}

void host_file_give_up(struct host_file *file)
{
    atomic_store_explicit(&file->has_lost_writes, true, memory_order_relaxed);
}

struct err *host_file_sync(struct host_file *file)
{
    if (atomic_load_explicit(&file->has_lost_writes, memory_order_relaxed))
        return err_new(ERR_IO,
                       "flush '%s': an earlier flush failed, so the host may have dropped writes; "
                       "stop the machine and check the image and its file system",
                       file->path);

    struct err *err = file->ops->sync(file);
    if (err != NULL)
        host_file_give_up(file);
    return err;
}

struct err *host_file_punch(struct host_file *file, uint64_t offset, uint64_t len)
{
    return file->ops->punch(file, offset, len);
}

struct err *host_file_allocate(struct host_file *file, uint64_t offset, uint64_t len)
{
    return len == 0 ? NULL : file->ops->allocate(file, offset, len);
}

struct err *host_file_truncate(struct host_file *file, uint64_t bytes)
{
    return file->ops->truncate(file, bytes);
}

struct err *host_file_size(struct host_file *file, uint64_t *out_bytes)
{
    return file->ops->size(file, out_bytes);
}

void host_file_destroy(struct host_file *file)
{
    if (file != NULL)
        file->ops->destroy(file);
}

static struct fd_file *self_of(struct host_file *file)
{
    return CONTAINER_OF(file, struct fd_file, base);
}

static struct err *fd_file_read(struct host_file *file, const struct io_vector *to, uint64_t offset)
{
    struct io_vector left = *to;

    while (left.count > 0) {
        ssize_t len = preadv(self_of(file)->fd, left.iovs, left.count, (off_t)offset);
        if (len < 0 && errno == EINTR)
            continue;
        if (len < 0)
            return err_errno(errno, "read '%s' at %llu", file->path, (unsigned long long)offset);
        if (len == 0) {
            io_vector_zero(left.iovs, left.count);
            return NULL;
        }
        io_vector_advance(&left, (size_t)len);
        offset += (uint64_t)len;
    }
    return NULL;
}

static struct err *fd_file_write(struct host_file *file, const struct io_vector *from,
                                 uint64_t offset)
{
    struct io_vector left = *from;

    while (left.count > 0) {
        ssize_t len = pwritev(self_of(file)->fd, left.iovs, left.count, (off_t)offset);
        if (len < 0 && errno == EINTR)
            continue;
        if (len <= 0)
            return err_errno(len < 0 ? errno : ENOSPC, "write '%s' at %llu", file->path,
                             (unsigned long long)offset);
        io_vector_advance(&left, (size_t)len);
        offset += (uint64_t)len;
    }
    return NULL;
}

static struct err *fd_file_sync(struct host_file *file)
{
    if (fdatasync(self_of(file)->fd) != 0)
        return err_errno(errno, "flush '%s'", file->path);
    return NULL;
}

static struct err *fd_file_punch(struct host_file *file, uint64_t offset, uint64_t len)
{
    if (fallocate(self_of(file)->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
                  (off_t)len) == 0 ||
        errno == EOPNOTSUPP)
        return NULL;
    return err_errno(errno, "punch a hole in '%s' at %llu", file->path, (unsigned long long)offset);
}

static struct err *fd_file_allocate(struct host_file *file, uint64_t offset, uint64_t len)
{
    if (fallocate(self_of(file)->fd, FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)len) == 0 ||
        errno == EOPNOTSUPP)
        return NULL;
    return err_errno(errno, "reserve %llu bytes for '%s'", (unsigned long long)len, file->path);
}

static struct err *fd_file_truncate(struct host_file *file, uint64_t bytes)
{
    if (ftruncate(self_of(file)->fd, (off_t)bytes) != 0)
        return err_errno(errno, "resize '%s' to %llu bytes", file->path, (unsigned long long)bytes);
    return NULL;
}

/* lseek answers for block devices too, and nobody else uses the file position. */
static struct err *fd_file_size(struct host_file *file, uint64_t *out_bytes)
{
    off_t end = lseek(self_of(file)->fd, 0, SEEK_END);
    if (end < 0)
        return err_errno(errno, "size of '%s'", file->path);

    *out_bytes = (uint64_t)end;
    return NULL;
}

static void fd_file_destroy(struct host_file *file)
{
    struct fd_file *self = self_of(file);

    (void)close(self->fd);
    free(self);
}

static const struct host_file_ops fd_file_ops = {
    .name = "fd",
    .read = fd_file_read,
    .write = fd_file_write,
    .sync = fd_file_sync,
    .punch = fd_file_punch,
    .allocate = fd_file_allocate,
    .truncate = fd_file_truncate,
    .size = fd_file_size,
    .destroy = fd_file_destroy,
};

struct err *host_file_from_fd(int fd, const char *path, struct host_file **out_file)
{
    CLEANUP(cleanup_fd) int owned = fd;
    struct stat status;

    if (fstat(owned, &status) != 0)
        return err_errno(errno, "open '%s'", path);
    if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode))
        return err_new(ERR_INVALID, "'%s' is neither a regular file nor a block device", path);

    size_t path_bytes = strlen(path) + 1;
    struct fd_file *self = calloc(1, sizeof(*self) + path_bytes);
    if (self == NULL)
        return err_new(ERR_NO_MEMORY, "open '%s'", path);

    memcpy(self->path, path, path_bytes);
    self->base.ops = &fd_file_ops;
    self->base.path = self->path;
    self->fd = TAKE_FD(owned);
    *out_file = &self->base;
    return NULL;
}
