/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_layer.c - see image_layer.h.
 * Tested by: disk_image_test.c
 */
#include "storage/image_layer.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "storage/host_file.h"
#include "storage/image_lock.h"
#include "storage/overlay_file.h"
#include "storage/qcow/qcow_header.h"
#include "storage/qcow/qcow_image.h"
#include "storage/qcow/qcow_resize.h"
#include "storage/raw/raw_image.h"

#define WRITE_BITS (S_IWUSR | S_IWGRP | S_IWOTH)

/* The mode is asked, not the kernel: root may write everything. */
struct err *image_layer_check_not_sealed(int fd, const char *path)
{
    struct stat status;

    if (fstat(fd, &status) != 0)
        return err_errno(errno, "open image '%s'", path);
    if (S_ISBLK(status.st_mode) || (status.st_mode & WRITE_BITS) != 0)
        return NULL;

    CLEANUP(cleanup_free) char *newest = NULL;
    TRY(overlay_file_newest(path, &newest));
    if (newest == NULL || strcmp(newest, path) == 0)
        return err_new(ERR_STATE,
                       "image '%s' is sealed: it is write protected, as a layer of a "
                       "snapshot is; make an overlay of it",
                       path);
    return err_new(ERR_STATE,
                   "image '%s' is sealed, a snapshot holds it; its newest overlay is "
                   "'%s'",
                   path, newest);
}

struct err *image_layer_check_writable(const struct image_layer *layer, const char *path)
{
    TRY(image_layer_check_not_sealed(layer->fd, path));
    if (!layer->is_qcow)
        return NULL;

    struct err *err = qcow_header_check_writable(qcow_image_header(layer->block));
    return err == NULL ? NULL : err_wrap(err, "open image '%s'", path);
}

/* Whoever removes files that nobody needs holds their locks meanwhile: one that was opened before
 * and locked afterwards may have lost its name, and what is written to it would be lost with it. */
struct err *image_layer_lock(int fd, const char *path, enum disk_image_access access)
{
    bool is_writable = access == DISK_IMAGE_WRITABLE;
    struct stat status;

    if (is_writable)
        TRY(image_layer_check_not_sealed(fd, path));
    TRY(image_lock_take(fd, path, is_writable ? IMAGE_LOCK_WRITER : IMAGE_LOCK_READER));
    if (fstat(fd, &status) != 0)
        return err_errno(errno, "open image '%s'", path);
    if (is_writable && status.st_nlink == 0)
        return err_new(ERR_NOT_FOUND, "image '%s' was removed while it was opened", path);
    return NULL;
}

static struct err *check_format(const char *path, const char *format, bool *out_is_qcow)
{
    *out_is_qcow = strcmp(format, "qcow2") == 0;
    if (!*out_is_qcow && strcmp(format, "raw") != 0)
        return err_new(ERR_INCOMPATIBLE,
                       "image '%s' has the format '%s'; it must be 'raw' or 'qcow2'", path, format);
    return NULL;
}

struct err *image_layer_from_fd(int fd, const char *path, const char *format,
                                enum disk_image_access access, struct image_layer_use use,
                                struct image_layer *out_layer)
{
    CLEANUP(cleanup_fd) int owned = fd;
    bool is_writable = access == DISK_IMAGE_WRITABLE;
    struct image_layer layer = {.fd = fd};

    TRY(check_format(path, format, &layer.is_qcow));
    if (use.locking == IMAGE_LAYER_LOCKED)
        TRY(image_layer_lock(owned, path, access));
    else if (is_writable)
        TRY(image_layer_check_not_sealed(owned, path));

    struct host_file *file = NULL;
    bool is_later = use.cache == HOST_FILE_CACHE_NONE && layer.is_qcow && !is_writable;
    TRY(host_file_open_fd(TAKE_FD(owned), path, is_later ? HOST_FILE_CACHE_NONE_LATER : use.cache,
                          &file));
    layer.path = file->path;
    TRY(layer.is_qcow ? qcow_image_open(file, !is_writable, &layer.block)
                      : raw_image_open(file, !is_writable, &layer.block));
    if (is_later) /* the header alone was read, which may well be in the page cache */
        host_file_go_direct(file);
    *out_layer = layer;
    return NULL;
}

/* Who is not root learns only here that a file is sealed. */
static struct err *explain_denial(const char *path, enum disk_image_access access, int error)
{
    CLEANUP(cleanup_fd) int fd = -1;

    if (access == DISK_IMAGE_WRITABLE)
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd >= 0)
        TRY(image_layer_check_not_sealed(fd, path));
    return err_new(ERR_DENIED, "open image '%s'%s: %s", path,
                   access == DISK_IMAGE_WRITABLE ? " for writing" : "", strerror(error));
}

struct err *image_layer_open_file(const char *path, enum disk_image_access access, int *out_fd)
{
    int mode = access == DISK_IMAGE_WRITABLE ? O_RDWR : O_RDONLY;
    /* O_NONBLOCK: opening must not wait for the other end of a pipe, which is refused later. */
    int fd = open(path, mode | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0 && errno == ENOENT)
        return err_new(ERR_NOT_FOUND, "there is no image '%s'", path);
    if (fd < 0 && (errno == EACCES || errno == EPERM))
        return explain_denial(path, access, errno);
    if (fd < 0)
        return err_errno(errno, "open image '%s'", path);
    *out_fd = fd;
    return NULL;
}

struct err *image_layer_open(const char *path, const char *format, enum disk_image_access access,
                             struct image_layer_use use, struct image_layer *out_layer)
{
    bool is_qcow;
    int fd = -1;

    TRY(check_format(path, format, &is_qcow));
    TRY(image_layer_open_file(path, access, &fd));
    return image_layer_from_fd(fd, path, format, access, use, out_layer);
}

struct err *image_layer_resize(const struct image_layer *layer, uint64_t virtual_bytes)
{
    return layer->is_qcow ? qcow_image_resize(layer->block, virtual_bytes)
                          : raw_image_resize(layer->block, virtual_bytes);
}

struct err *image_layer_check_sealed(const struct image_layer *layer)
{
    struct stat status;

    if (fstat(layer->fd, &status) != 0)
        return err_errno(errno, "look at '%s'", layer->path);
    if ((status.st_mode & WRITE_BITS) != 0)
        return err_new(ERR_STATE,
                       "layer '%s' is not sealed: a machine may still write to it; layers are "
                       "sealed (mode 0444) when a snapshot is taken",
                       layer->path);
    return NULL;
}

static struct err *make_read_only(const struct image_layer *layer)
{
    if (layer->is_qcow)
        return qcow_image_seal(layer->block);

    TRY(block_flush(layer->block));
    layer->block->is_read_only = true;
    return NULL;
}

static struct err *protect(const struct image_layer *layer, const char *path)
{
    struct stat status;

    if (fstat(layer->fd, &status) != 0)
        return err_errno(errno, "seal image '%s'", path);
    if (!S_ISREG(status.st_mode))
        return err_new(ERR_INVALID, "image '%s' is not a file and can not be sealed", path);

    mode_t mode = status.st_mode & ALLPERMS;
    if (fchmod(layer->fd, mode & ~(mode_t)WRITE_BITS) != 0)
        return err_errno(errno, "seal image '%s'", path);
    struct err *err = image_lock_lower(layer->fd, path, IMAGE_LOCK_READER);
    if (err != NULL)
        (void)fchmod(layer->fd, mode);
    return err;
}

struct err *image_layer_seal(const struct image_layer *layer, const char *path)
{
    TRY(make_read_only(layer));
    struct err *err = protect(layer, path);
    if (err != NULL)
        layer->block->is_read_only = false;
    return err;
}
