/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nbd_plugin.c - a plugin of nbdkit: lets any NBD client read an image, or write it.
 * Tested by: tests/disk
 *
 *     nbdkit -r nbdkit-ferry-plugin.so file=disk.qcow2 format=qcow2
 *
 * The image is opened once, before nbdkit goes to the background, and serves all connections; its
 * locks are held until nbdkit ends.
 */
#define NBDKIT_API_VERSION 2
#include <errno.h>
#include <nbdkit-plugin.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "storage/image_map.h"
#include "tools/vm-disk/disk_source.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

static char *path; /* owned */
static struct disk_source source = {.format = "qcow2"};
static bool is_writable;
static struct image_chain chain; /* its block is owned */

static int error_number(enum err_kind kind)
{
    switch (kind) {
    case ERR_INVALID: return EINVAL;
    case ERR_DENIED: return EPERM;
    case ERR_NO_MEMORY: return ENOMEM;
    case ERR_STATE: return EROFS;
    case ERR_INCOMPATIBLE: return ENOTSUP;
    case ERR_NOT_FOUND: return ENOENT;
    case ERR_IO:
    case ERR_TIMEOUT:
    case ERR_CANCELLED: break;
    }
    return EIO;
}

/* What a callback returns: 0, or -1 with the error told. */
static int result_of(struct err *err)
{
    if (err == NULL)
        return 0;
    nbdkit_error("%s", err_message(err));
    nbdkit_set_error(error_number(err_kind(err)));
    err_free(err);
    return -1;
}

static int add_folder(const char *value)
{
    if (source.folders.count == OPTION_LIST_MAX) {
        nbdkit_error("more than %u folders", OPTION_LIST_MAX);
        return -1;
    }
    char *folder = nbdkit_absolute_path(value);
    if (folder == NULL)
        return -1;
    source.folders.values[source.folders.count++] = folder; /* for as long as nbdkit runs */
    return 0;
}

static int set_flag(const char *value, bool *out_flag)
{
    int flag = nbdkit_parse_bool(value);

    *out_flag = flag == 1;
    return flag < 0 ? -1 : 0;
}

static int plugin_config(const char *key, const char *value)
{
    if (strcmp(key, "file") == 0) {
        free(path);
        path = nbdkit_absolute_path(value);
        return path == NULL ? -1 : 0;
    }
    if (strcmp(key, "format") == 0) {
        source.format = strcmp(value, "raw") == 0 ? "raw" : "qcow2";
        if (strcmp(value, source.format) == 0)
            return 0;
        nbdkit_error("format '%s' is neither qcow2 nor raw", value);
        return -1;
    }
    if (strcmp(key, "image-folder") == 0)
        return add_folder(value);
    if (strcmp(key, "snapshot") == 0) {
        source.snapshot = value; /* of the command line */
        return 0;
    }
    if (strcmp(key, "writable") == 0)
        return set_flag(value, &is_writable);
    if (strcmp(key, "share") == 0)
        return set_flag(value, &source.is_shared);
    nbdkit_error("unknown parameter '%s'", key);
    return -1;
}

static int plugin_config_complete(void)
{
    if (path != NULL)
        return 0;
    nbdkit_error("say which image to serve: file=IMAGE");
    return -1;
}

static int plugin_get_ready(void)
{
    return result_of(disk_source_open(
        &source, path, is_writable ? DISK_IMAGE_WRITABLE : DISK_IMAGE_READ_ONLY, &chain));
}

static void plugin_cleanup(void)
{
    if (chain.top.block != NULL)
        (void)result_of(block_close(chain.top.block));
    chain.top.block = NULL;
    free(path);
}

/* All connections share the one image. */
static void *plugin_open(int is_read_only)
{
    (void)is_read_only;
    return &chain;
}

static int64_t plugin_get_size(void *handle)
{
    (void)handle;
    return (int64_t)chain.top.block->virtual_bytes;
}

static int plugin_can_write(void *handle)
{
    (void)handle;
    return is_writable;
}

static int plugin_can_multi_conn(void *handle)
{
    (void)handle;
    return 1;
}

static int plugin_pread(void *handle, void *data, uint32_t len, uint64_t offset, uint32_t flags)
{
    struct iovec iov = {data, len};

    (void)handle;
    (void)flags;
    return result_of(block_read(chain.top.block, &iov, 1, offset));
}

static int plugin_pwrite(void *handle, const void *data, uint32_t len, uint64_t offset,
                         uint32_t flags)
{
    struct iovec iov = {(void *)(uintptr_t)data, len};

    (void)handle;
    (void)flags;
    return result_of(block_write(chain.top.block, &iov, 1, offset));
}

static int plugin_flush(void *handle, uint32_t flags)
{
    (void)handle;
    (void)flags;
    return result_of(block_flush(chain.top.block));
}

static int plugin_trim(void *handle, uint32_t len, uint64_t offset, uint32_t flags)
{
    (void)handle;
    (void)flags;
    return result_of(block_discard(chain.top.block, offset, len));
}

static int plugin_zero(void *handle, uint32_t len, uint64_t offset, uint32_t flags)
{
    (void)handle;
    return result_of(
        block_write_zeroes(chain.top.block, offset, len, (flags & NBDKIT_FLAG_MAY_TRIM) != 0));
}

static int plugin_extents(void *handle, uint32_t len, uint64_t offset, uint32_t flags,
                          struct nbdkit_extents *extents)
{
    uint64_t end = offset + len;

    (void)handle;
    while (offset < end) {
        struct image_extent extent;
        int result = result_of(image_chain_map(&chain, offset, end - offset, &extent));
        if (result != 0)
            return result;
        uint32_t type =
            extent.kind == IMAGE_EXTENT_DATA ? 0 : NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO;
        if (nbdkit_add_extent(extents, offset, extent.bytes, type) != 0)
            return -1;
        if ((flags & NBDKIT_FLAG_REQ_ONE) != 0)
            break;
        offset += extent.bytes;
    }
    return 0;
}

static struct nbdkit_plugin plugin = {
    .name = "ferry",
    .longname = "disk images of Ferry",
    .description = "raw and qcow2 images with everything that they are based on",
    .config = plugin_config,
    .config_complete = plugin_config_complete,
    .config_help = "file=IMAGE           (required) the image\n"
                   "format=qcow2|raw     its format, qcow2 by default\n"
                   "image-folder=FOLDER  backing images may lie here, too; may be repeated\n"
                   "writable=BOOL        clients may write\n"
                   "share=BOOL           read although a machine may be writing",
    .magic_config_key = "file",
    .get_ready = plugin_get_ready,
    .cleanup = plugin_cleanup,
    .open = plugin_open,
    .get_size = plugin_get_size,
    .can_write = plugin_can_write,
    .can_multi_conn = plugin_can_multi_conn,
    .pread = plugin_pread,
    .pwrite = plugin_pwrite,
    .flush = plugin_flush,
    .trim = plugin_trim,
    .zero = plugin_zero,
    .extents = plugin_extents,
};

struct nbdkit_plugin *plugin_init(void); /* what the macro defines, and nbdkit looks for */

NBDKIT_REGISTER_PLUGIN(plugin)
