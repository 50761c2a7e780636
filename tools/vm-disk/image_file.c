/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_file.c - see image_file.h. Tested by: tests/disk
 */
#include "tools/vm-disk/image_file.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file_io.h"
#include "storage/host_file.h"
#include "storage/image_lock.h"
#include "tools/program.h"

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

/* By Ctrl-C while the host is busy for long, where nothing looks at a flag. */
static const char *volatile removed_by_signal;

static void remove_and_end(int signal_number)
{
    (void)signal_number;
    (void)unlink(removed_by_signal);
    _exit(PROGRAM_CANCELLED);
}

static struct err *fill_or_be_removed(int fd, const char *path, bool is_qcow,
                                      const struct qcow_create_options *options)
{
    struct sigaction action = {.sa_handler = remove_and_end}, old_int, old_term;

    removed_by_signal = path;
    (void)sigaction(SIGINT, &action, &old_int);
    (void)sigaction(SIGTERM, &action, &old_term);
    struct err *err = fill(fd, path, is_qcow, options);
    (void)sigaction(SIGINT, &old_int, NULL);
    (void)sigaction(SIGTERM, &old_term, NULL);
    return err;
}

static bool is_same(const struct stat *status, int fd)
{
    struct stat other;

    return fd >= 0 && fstat(fd, &other) == 0 && file_is_same(&other, status);
}

/* The caller's own locks are in nobody's way. */
static struct err *lock_old(int fd, const char *path, int reader_fd)
{
    struct stat status;
    bool is_held = false;

    TRY(image_layer_check_not_sealed(fd, path));
    if (fstat(fd, &status) != 0)
        return err_errno(errno, "replace '%s'", path);
    if (!is_same(&status, reader_fd))
        return image_layer_lock(fd, path, DISK_IMAGE_WRITABLE);
    TRY(image_lock_is_held(reader_fd, path, &is_held));
    return is_held ? err_new(ERR_DENIED, "image '%s' is in use by another process", path) : NULL;
}

static struct err *check_is_file(const char *path)
{
    struct stat status;

    if (stat(path, &status) != 0)
        return errno == ENOENT
                   ? err_new(ERR_STATE, "'%s' is a symbolic link that leads nowhere; remove it",
                             path)
                   : err_errno(errno, "replace '%s'", path);
    if (!S_ISREG(status.st_mode))
        return err_new(ERR_STATE,
                       "'%s' is there and is no file, and only files are replaced; to fill a block "
                       "device, serve the image and copy that with nbdcopy",
                       path);
    return NULL;
}

/* Opens what is there, and holds it so that nobody begins to use what is about to go. */
static struct err *hold_old(const char *path, bool may_replace, int reader_fd, int *out_fd)
{
    struct stat status;

    if (lstat(path, &status) != 0)
        return NULL;
    if (!may_replace)
        return err_new(ERR_STATE, "'%s' is there already; %s", path,
                       S_ISREG(status.st_mode) ? "remove it, or say --force"
                                               : "give the new image another name");
    TRY(check_is_file(path));
    CLEANUP(cleanup_fd) int fd = -1;
    TRY(image_layer_open_file(path, DISK_IMAGE_READ_ONLY, &fd));
    TRY(lock_old(fd, path, reader_fd));
    *out_fd = TAKE_FD(fd);
    return NULL;
}

/* A link stays, what it leads to is replaced. */
static struct err *name_it(const char *path, struct image_file *file)
{
    struct stat status;
    bool is_link = file->old_fd >= 0 && lstat(path, &status) == 0 && S_ISLNK(status.st_mode);

    file->path = is_link ? realpath(path, NULL) : strdup(path);
    if (file->path == NULL)
        return err_errno(errno, "create '%s'", path);
    return asprintf(&file->draft, "%s.part", file->path) < 0
               ? err_new(ERR_NO_MEMORY, "create '%s'", path)
               : NULL;
}

static struct err *create_draft(const struct image_file *file, int *out_fd)
{
    int fd = open(file->draft, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, IMAGE_MODE);

    if (fd < 0 && errno == EEXIST)
        return err_new(ERR_STATE,
                       "create '%s': '%s' is there, from somebody at work on the same or from an "
                       "earlier attempt; remove it if nobody is",
                       file->path, file->draft);
    if (fd < 0 && (errno == EACCES || errno == EPERM))
        return err_new(ERR_DENIED, "create '%s': %s", file->draft, strerror(errno));
    if (fd < 0)
        return err_errno(errno, "create '%s'", file->draft);
    *out_fd = fd;
    return NULL;
}

static void forget(struct image_file *file)
{
    if (file->path != NULL)
        cleanup_fd(&file->old_fd);
    free(TAKE_PTR(file->path));
    free(TAKE_PTR(file->draft));
}

struct err *image_file_create(const char *path, bool may_replace, int reader_fd, const char *format,
                              const struct qcow_create_options *options,
                              struct image_file *out_file)
{
    struct image_file file = {.old_fd = -1};
    bool is_qcow = false;
    int fd = -1;

    TRY(image_format_check(format, &is_qcow));
    TRY(hold_old(path, may_replace, reader_fd, &file.old_fd));
    struct err *err = name_it(path, &file);
    if (err == NULL)
        err = create_draft(&file, &fd);
    if (err != NULL) {
        forget(&file);
        return err;
    }
    err = fill_or_be_removed(fd, file.draft, is_qcow, options);
    if (err != NULL)
        image_file_finish(&file);
    else
        *out_file = file;
    return err;
}

bool image_file_is_old(const struct image_file *file, int fd)
{
    struct stat status;

    return file->old_fd >= 0 && fstat(file->old_fd, &status) == 0 && is_same(&status, fd);
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
                  file->old_fd >= 0 ? 0 : RENAME_NOREPLACE) != 0)
        return err_errno(errno, "rename '%s' to '%s'", file->draft, file->path);
    free(TAKE_PTR(file->draft));
    return folder_sync(folder);
}

void image_file_finish(struct image_file *file)
{
    if (file->draft != NULL)
        (void)unlink(file->draft);
    forget(file);
}
