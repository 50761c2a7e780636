/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_file.c - see image_file.h. Tested by: tests/disk
 */
#include "tools/vm-disk/image_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file_io.h"
#include "storage/host_file.h"

#define IMAGE_MODE 0644

struct err *image_format_check(const char *format, bool *out_is_qcow)
{
    *out_is_qcow = strcmp(format, "qcow2") == 0;
    if (!*out_is_qcow && strcmp(format, "raw") != 0)
        return err_new(ERR_INVALID, "format '%s' is neither qcow2 nor raw", format);
    return NULL;
}

static struct err *fill_raw(struct host_file *file, const struct qcow_create_options *options)
{
    TRY(host_file_truncate(file, options->virtual_bytes));
    switch (options->preallocation) {
    case QCOW_PREALLOCATION_OFF:
    case QCOW_PREALLOCATION_METADATA: break;
    case QCOW_PREALLOCATION_FALLOC: TRY(host_file_allocate(file, 0, options->virtual_bytes)); break;
    case QCOW_PREALLOCATION_FULL:
        TRY(host_file_write_zeroes(file, 0, options->virtual_bytes));
        break;
    }
    return host_file_sync(file);
}

static struct err *fill(int fd, const char *path, bool is_qcow,
                        const struct qcow_create_options *options)
{
    struct host_file *file = NULL;

    TRY(host_file_from_fd(fd, path, &file));
    struct err *err = is_qcow ? qcow_create(file, options) : fill_raw(file, options);
    host_file_destroy(file);
    return err;
}

static struct err *check_free(const char *path, bool may_replace)
{
    if (!may_replace && access(path, F_OK) == 0)
        return err_new(ERR_STATE, "'%s' is there already; remove it, or say --force", path);
    return NULL;
}

struct err *image_file_create(const char *path, bool may_replace, const char *format,
                              const struct qcow_create_options *options,
                              struct image_file *out_file)
{
    struct image_file file = {.path = path, .may_replace = may_replace};
    bool is_qcow = false;

    TRY(image_format_check(format, &is_qcow));
    TRY(check_free(path, may_replace));
    if (asprintf(&file.draft, "%s.part", path) < 0)
        return err_new(ERR_NO_MEMORY, "create '%s'", path);
    int fd = open(file.draft, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, IMAGE_MODE);
    if (fd < 0) {
        struct err *err =
            errno == EEXIST
                ? err_new(ERR_STATE,
                          "create '%s': '%s' is there, from somebody at work on the same or from "
                          "an earlier attempt; remove it if nobody is",
                          path, file.draft)
                : err_errno(errno, "create '%s'", file.draft);
        free(file.draft);
        return err;
    }
    struct err *err = fill(fd, file.draft, is_qcow, options);
    if (err != NULL)
        image_file_finish(&file);
    else
        *out_file = file;
    return err;
}

struct err *image_file_open(const struct image_file *file, const char *format,
                            struct image_layer *out_layer)
{
    return image_layer_open(file->draft, format, DISK_IMAGE_WRITABLE,
                            (struct image_layer_use){.locking = IMAGE_LAYER_LOCKED}, out_layer);
}

struct err *image_file_publish(struct image_file *file)
{
    CLEANUP(cleanup_free) char *folder = NULL;

    TRY(folder_of(file->path, &folder));
    if (renameat2(AT_FDCWD, file->draft, AT_FDCWD, file->path,
                  file->may_replace ? 0 : RENAME_NOREPLACE) != 0)
        return err_errno(errno, "rename '%s' to '%s'", file->draft, file->path);
    free(TAKE_PTR(file->draft));
    return folder_sync(folder);
}

void image_file_finish(struct image_file *file)
{
    if (file->draft != NULL)
        (void)unlink(file->draft);
    free(TAKE_PTR(file->draft));
}
