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
#include "storage/host_file_aligned.h"
#include "storage/write_ranges.h"

#define ALIGNMENT_MAX (64u * KIB) /* a larger one is taken for nonsense */

struct fd_file {
    struct host_file base;
    struct host_file_door door; /* base.door points here; its fd is owned */
    char path[];                /* base.path points here */
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
    static _Alignas(PAGE_BYTES) uint8_t zeroes[64 * KIB]; /* only ever read */

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

bool host_file_begin_write(struct host_file *file, struct write_range *range)
{
    return file->door->ranges == NULL || write_ranges_try_begin(file->door->ranges, range);
}

void host_file_end_write(struct host_file *file, struct write_range *range)
{
    if (file->door->ranges != NULL)
        write_ranges_end(file->door->ranges, range);
}

bool host_file_is_aligned(struct host_file_alignment alignment, const struct iovec *iovs,
                          int iov_count, uint64_t offset)
{
    uint64_t bits = offset & (alignment.offset - 1u);

    for (int i = 0; i < iov_count; i++)
        bits |= ((uintptr_t)iovs[i].iov_base & (alignment.memory - 1u)) |
                (iovs[i].iov_len & (alignment.offset - 1u));
    return bits == 0;
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
        ssize_t len = preadv(self_of(file)->door.fd, left.iovs, left.count, (off_t)offset);
        if (len < 0 && errno == EINTR)
            continue;
        if (len < 0)
            return err_errno(errno, "read '%s' at %llu", file->path, (unsigned long long)offset);
        io_vector_advance(&left, (size_t)len);
        /* Past the cache a part of a block is the last one, and reading on is refused. */
        if (len == 0 || (size_t)len % self_of(file)->door.alignment.offset != 0) {
            io_vector_zero(left.iovs, left.count);
            return NULL;
        }
        offset += (uint64_t)len;
    }
    return NULL;
}

static struct err *fd_file_write(struct host_file *file, const struct io_vector *from,
                                 uint64_t offset)
{
    struct io_vector left = *from;

    while (left.count > 0) {
        ssize_t len = pwritev(self_of(file)->door.fd, left.iovs, left.count, (off_t)offset);
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
    if (fdatasync(self_of(file)->door.fd) != 0)
        return err_errno(errno, "flush '%s'", file->path);
    return NULL;
}

static struct err *fd_file_punch(struct host_file *file, uint64_t offset, uint64_t len)
{
    if (fallocate(self_of(file)->door.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
                  (off_t)len) == 0 ||
        errno == EOPNOTSUPP)
        return NULL;
    return err_errno(errno, "punch a hole in '%s' at %llu", file->path, (unsigned long long)offset);
}

static struct err *fd_file_allocate(struct host_file *file, uint64_t offset, uint64_t len)
{
    if (fallocate(self_of(file)->door.fd, FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)len) == 0 ||
        errno == EOPNOTSUPP)
        return NULL;
    return err_errno(errno, "reserve %llu bytes for '%s'", (unsigned long long)len, file->path);
}

static struct err *fd_file_truncate(struct host_file *file, uint64_t bytes)
{
    if (ftruncate(self_of(file)->door.fd, (off_t)bytes) != 0)
        return err_errno(errno, "resize '%s' to %llu bytes", file->path, (unsigned long long)bytes);
    return NULL;
}

/* lseek answers for block devices too, and nobody else uses the file position. */
static struct err *fd_file_size(struct host_file *file, uint64_t *out_bytes)
{
    off_t end = lseek(self_of(file)->door.fd, 0, SEEK_END);
    if (end < 0)
        return err_errno(errno, "size of '%s'", file->path);

    *out_bytes = (uint64_t)end;
    return NULL;
}

static void fd_file_destroy(struct host_file *file)
{
    struct fd_file *self = self_of(file);

    (void)close(self->door.fd);
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

/* False where going past the page cache can not be, or nobody says how. */
static bool find_alignment(int fd, struct host_file_alignment *out_alignment)
{
    struct statx status;

    if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &status) != 0 ||
        (status.stx_mask & STATX_DIOALIGN) == 0 || !is_power_of_two(status.stx_dio_mem_align) ||
        !is_power_of_two(status.stx_dio_offset_align) || status.stx_dio_mem_align > ALIGNMENT_MAX ||
        status.stx_dio_offset_align > ALIGNMENT_MAX)
        return false;
    *out_alignment = (struct host_file_alignment){.memory = status.stx_dio_mem_align,
                                                  .offset = status.stx_dio_offset_align};
    return true;
}

static bool go_direct(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    return flags >= 0 && fcntl(fd, F_SETFL, flags | O_DIRECT) == 0;
}

/* Where it can not be, whole blocks go through the page cache. */
void host_file_go_direct(struct host_file *file)
{
    (void)go_direct(file->door->fd);
}

/* Opening had to be prevented from waiting; reads and writes may. */
static struct err *allow_blocking(int fd, const char *path)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || ((flags & O_NONBLOCK) != 0 && fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) != 0))
        return err_errno(errno, "open '%s'", path);
    return NULL;
}

/* What the descriptor wants, which goes past the page cache if that is asked for and can be. */
static struct host_file_alignment choose_alignment(int fd, enum host_file_cache cache,
                                                   bool is_device)
{
    struct host_file_alignment alignment;
    bool is_later = cache == HOST_FILE_CACHE_NONE_LATER && !is_device;

    if (cache != HOST_FILE_CACHE_WRITEBACK && find_alignment(fd, &alignment) &&
        (is_later || go_direct(fd)))
        return alignment;
    return (struct host_file_alignment){.memory = 1, .offset = 1};
}

struct err *host_file_open_fd(int fd, const char *path, enum host_file_cache cache,
                              struct host_file **out_file)
{
    CLEANUP(cleanup_fd) int owned = fd;
    struct stat status;

    if (fstat(owned, &status) != 0)
        return err_errno(errno, "open '%s'", path);
    if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode))
        return err_new(ERR_INVALID, "'%s' is neither a regular file nor a block device", path);
    TRY(allow_blocking(owned, path));

    size_t path_bytes = strlen(path) + 1;
    struct fd_file *self = calloc(1, sizeof(*self) + path_bytes);
    if (self == NULL)
        return err_new(ERR_NO_MEMORY, "open '%s'", path);

    memcpy(self->path, path, path_bytes);
    self->base.ops = &fd_file_ops;
    self->base.path = self->path;
    self->base.door = &self->door;
    self->door.alignment = choose_alignment(owned, cache, S_ISBLK(status.st_mode));
    self->door.fd = TAKE_FD(owned);
    if (self->door.alignment.offset > 1 || self->door.alignment.memory > 1)
        return host_file_aligned_create(&self->base, self->door.alignment, out_file);
    *out_file = &self->base;
    return NULL;
}
