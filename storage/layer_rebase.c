/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_rebase.c - see layer_rebase.h.
 */
#include "storage/layer_rebase.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/file_io.h"
#include "base/limits.h"
#include "storage/image_folders.h"
#include "storage/image_map.h"
#include "storage/qcow/qcow_backing.h"
#include "storage/qcow/qcow_header.h"
#include "storage/qcow/qcow_image.h"
#include "storage/qcow/qcow_presence.h"

#define CHUNK_BYTES     ((size_t)(2 * MIB)) /* no cluster is larger */
#define GRAIN_BYTES_MIN ((size_t)(64 * KIB))

struct work {
    const struct layer_rebase *rebase;
    struct image_folders *folders; /* owned */
    struct image_chain old_chain;  /* its top's block is owned, as is the other's */
    struct image_chain new_chain;
    uint8_t *old_data; /* owned */
    uint8_t *new_data; /* owned */
    /* What is copied when a byte of it differs: whole clusters or subclusters. Zeros in a part of
     * one would not be noted where zeros show already, from the old images. */
    size_t grain_bytes;
    uint64_t copied_bytes;
};

static struct err *check_not_itself(const struct layer_rebase *rebase, int own_fd, int fd)
{
    struct stat own, other;

    if (fstat(own_fd, &own) != 0 || fstat(fd, &other) != 0)
        return err_errno(errno, "rebase '%s'", rebase->image.path);
    if (file_is_same(&own, &other))
        return err_new(ERR_STATE, "'%s' can not be put onto itself", rebase->image.path);
    return NULL;
}

static struct err *open_new(struct work *work)
{
    const struct layer_rebase *rebase = work->rebase;
    CLEANUP(cleanup_free) char *path = NULL;
    CLEANUP(cleanup_fd) int fd = -1;

    if (rebase->backing == NULL)
        return NULL;
    /* By the rules that the next open will go by. */
    TRY(image_folders_open(work->folders, rebase->image.path, rebase->backing, &fd, &path));
    TRY(check_not_itself(rebase, work->old_chain.top.fd, fd));
    struct disk_image_name name = {
        .path = path, .format = rebase->backing_format, .access = DISK_IMAGE_READ_ONLY};
    return err_wrap(image_chain_open(&name, work->folders, IMAGE_LAYER_LOCKED, &work->new_chain),
                    "new backing image");
}

/* What a snapshot inside the image does not hold shows through from below, too, and is not copied.
 */
static struct err *check_snapshots(const struct work *work)
{
    const struct qcow_header *header = qcow_image_header(work->old_chain.top.block);
    bool stays_alone = work->old_chain.stack == NULL && work->rebase->backing == NULL;

    if (header->snapshot_count == 0 || stays_alone)
        return NULL;
    return err_new(ERR_STATE,
                   "'%s' has %u snapshots inside, which would show something else on other images; "
                   "delete them, or take each out with 'vm-disk convert --snapshot'",
                   work->rebase->image.path, header->snapshot_count);
}

static struct err *prepare(struct work *work)
{
    const struct disk_image_name *image = &work->rebase->image;

    TRY(image_folders_create(image->path, image->folders, image->folder_count, &work->folders));
    TRY(image_chain_open(image, work->folders, IMAGE_LAYER_LOCKED, &work->old_chain));
    if (!work->old_chain.top.is_qcow)
        return err_new(ERR_INVALID, "'%s' is a raw image, which is based on none", image->path);
    TRY(check_snapshots(work));
    TRY(open_new(work));
    uint32_t unit_bits = qcow_header_subcluster_bits(qcow_image_header(work->old_chain.top.block));
    work->grain_bytes = MAX(GRAIN_BYTES_MIN, (size_t)1 << unit_bits);
    work->old_data = malloc(CHUNK_BYTES);
    work->new_data = malloc(CHUNK_BYTES);
    return work->old_data == NULL || work->new_data == NULL
               ? err_new(ERR_NO_MEMORY, "rebase '%s'", image->path)
               : NULL;
}

/* What the new images below show of a range; zeros behind their end. */
static struct err *read_new(struct work *work, uint64_t offset, size_t len)
{
    struct block *block = work->new_chain.top.block;
    size_t inside = block == NULL || offset >= block->virtual_bytes
                        ? 0
                        : (size_t)MIN((uint64_t)len, block->virtual_bytes - offset);
    struct iovec iov = {work->new_data, inside};

    memset(work->new_data + inside, 0, len - inside);
    return inside == 0 ? NULL : block_read(block, &iov, 1, offset);
}

static bool is_zero(const uint8_t *data, size_t len)
{
    return data[0] == 0 && memcmp(data, data + 1, len - 1) == 0;
}

static struct err *keep(struct work *work, uint64_t offset, const uint8_t *data, size_t len)
{
    struct block *block = work->old_chain.top.block;
    struct iovec iov = {(void *)(uintptr_t)data, len};

    work->copied_bytes += len;
    /* An image that is based on none need not note zeros, and does not. */
    return is_zero(data, len) && work->old_chain.stack != NULL
               ? block_write_zeroes(block, offset, len, true)
               : block_write(block, &iov, 1, offset);
}

/* A range that the image itself does not hold. */
static struct err *rebase_piece(struct work *work, uint64_t offset, size_t len)
{
    struct iovec iov = {work->old_data, len};

    TRY(block_read(work->old_chain.top.block, &iov, 1, offset));
    TRY(read_new(work, offset, len));
    for (size_t at = 0, part; at < len; at += part) {
        part = MIN(len - at, work->grain_bytes - (size_t)((offset + at) % work->grain_bytes));
        if (memcmp(work->old_data + at, work->new_data + at, part) != 0)
            TRY(keep(work, offset + at, work->old_data + at, part));
    }
    return NULL;
}

/* Is the byte known to be zeros below the image, by both? Gives for how many bytes this is so. */
static struct err *look_below(struct work *work, uint64_t offset, uint64_t *inout_len,
                              bool *out_is_zero)
{
    struct image_extent extent;
    bool is_zero_now;

    TRY(image_chain_map(&work->old_chain, offset, *inout_len, &extent));
    is_zero_now = extent.kind != IMAGE_EXTENT_DATA;
    *inout_len = extent.bytes;
    struct block *block = work->new_chain.top.block;
    if (block != NULL && offset < block->virtual_bytes) {
        TRY(image_chain_map(&work->new_chain, offset,
                            MIN(*inout_len, block->virtual_bytes - offset), &extent));
        is_zero_now = is_zero_now && extent.kind != IMAGE_EXTENT_DATA;
        *inout_len = extent.bytes;
    }
    *out_is_zero = is_zero_now;
    return NULL;
}

static struct err *rebase_range(struct work *work, uint64_t from, uint64_t to)
{
    struct layer_merge_watch *watch = work->rebase->watch;
    uint64_t total = work->old_chain.top.block->virtual_bytes;

    for (uint64_t at = from; at < to;) {
        uint64_t len = to - at;
        bool is_zero_below = false;
        TRY(look_below(work, at, &len, &is_zero_below));
        if (is_zero_below) {
            at += len;
        } else {
            uint64_t first = MAX(from, align_down(at, work->grain_bytes));
            uint64_t end = MIN(to, align_up(at + len, work->grain_bytes));
            end = MIN(end, align_down(first, CHUNK_BYTES) + CHUNK_BYTES);
            TRY(rebase_piece(work, first, (size_t)(end - first)));
            at = end;
        }
        if (watch != NULL && !watch->go_on(watch, at, total))
            return err_new(ERR_CANCELLED, "rebase '%s': cancelled; it shows what it did before",
                           work->rebase->image.path);
    }
    return NULL;
}

static struct err *copy(struct work *work)
{
    struct block *block = work->old_chain.top.block;
    uint64_t end = block->virtual_bytes;

    for (uint64_t at = 0, bytes = 0; at < end; at += bytes) {
        enum qcow_presence presence;
        TRY(qcow_image_presence(block, at, end - at, &presence, &bytes));
        if (presence == QCOW_PRESENCE_NONE)
            TRY(rebase_range(work, at, at + bytes));
    }
    return block_flush(block);
}

static struct err *set_name(int fd, const struct layer_rebase *rebase)
{
    struct host_file *file = NULL;
    int copy_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);

    if (copy_fd < 0)
        return err_errno(errno, "rebase '%s'", rebase->image.path);
    TRY(host_file_from_fd(copy_fd, rebase->image.path, &file));
    struct err *err = qcow_backing_set(file, rebase->backing, rebase->backing_format);
    host_file_destroy(file);
    return err;
}

/* The first error is told. */
static struct err *finish(struct work *work, struct err *err)
{
    struct block *blocks[] = {work->old_chain.top.block, work->new_chain.top.block};

    for (size_t i = 0; i < ARRAY_COUNT(blocks); i++) {
        struct err *close_err = blocks[i] == NULL ? NULL : block_close(blocks[i]);
        if (err == NULL)
            err = close_err;
        else
            err_free(close_err);
    }
    image_folders_destroy(work->folders);
    free(work->old_data);
    free(work->new_data);
    return err;
}

struct err *layer_rebase(const struct layer_rebase *rebase, uint64_t *out_copied_bytes)
{
    struct work work = {.rebase = rebase};

    struct err *err = prepare(&work);
    if (err == NULL)
        err = copy(&work);
    if (err == NULL)
        err = set_name(work.old_chain.top.fd, rebase);
    err = finish(&work, err);
    if (err == NULL)
        *out_copied_bytes = work.copied_bytes;
    return err;
}

/* The image below need not be there yet, or lie where this process may look. */
static struct err *check_name(const struct layer_rebase *rebase, int own_fd)
{
    CLEANUP(cleanup_free) char *path = NULL;
    CLEANUP(cleanup_fd) int fd = -1;
    struct image_folders *folders = NULL;

    TRY(image_folders_create(rebase->image.path, rebase->image.folders, rebase->image.folder_count,
                             &folders));
    struct err *err = image_folders_open(folders, rebase->image.path, rebase->backing, &fd, &path);
    image_folders_destroy(folders);
    if (err == NULL)
        return check_not_itself(rebase, own_fd, fd);
    err_free(err);
    return NULL;
}

struct err *layer_rebase_name(const struct layer_rebase *rebase)
{
    struct image_layer layer;

    TRY(image_layer_open(rebase->image.path, "qcow2", DISK_IMAGE_WRITABLE,
                         (struct image_layer_use){.locking = IMAGE_LAYER_LOCKED}, &layer));
    struct err *err = rebase->backing == NULL ? NULL : check_name(rebase, layer.fd);
    if (err == NULL)
        err = set_name(layer.fd, rebase);
    struct err *close_err = block_close(layer.block);
    if (err == NULL)
        return close_err;
    err_free(close_err);
    return err;
}
