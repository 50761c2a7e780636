/* SPDX-License-Identifier: Apache-2.0 */
/*
 * file_io.c - see file_io.h.
 */
#include "base/file_io.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

struct err *file_read_at(int fd, const char *path, void *out_data, size_t len, uint64_t offset)
{
    uint8_t *at = out_data;

    while (len != 0) {
        ssize_t got = pread(fd, at, len, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_errno(errno, "read '%s' at %llu", path, (unsigned long long)offset);
        if (got == 0)
            return err_new(ERR_INVALID, "read '%s': the file ends at %llu, %zu bytes early", path,
                           (unsigned long long)offset, len);
        at += got;
        offset += (uint64_t)got;
        len -= (size_t)got;
    }
    return NULL;
}

struct err *file_write_at(int fd, const char *path, const void *data, size_t len, uint64_t offset)
{
    const uint8_t *at = data;

    while (len != 0) {
        ssize_t put = pwrite(fd, at, len, (off_t)offset);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return err_errno(errno, "write '%s' at %llu", path, (unsigned long long)offset);
        at += put;
        offset += (uint64_t)put;
        len -= (size_t)put;
    }
    return NULL;
}

struct err *file_size(int fd, const char *path, uint64_t *out_bytes)
{
    struct stat status;

    if (fstat(fd, &status) != 0)
        return err_errno(errno, "look at '%s'", path);
    *out_bytes = (uint64_t)status.st_size;
    return NULL;
}

struct err *file_sync(int fd, const char *path)
{
    if (fdatasync(fd) != 0)
        return err_errno(errno, "make '%s' durable", path);
    return NULL;
}

int file_compare(const struct stat *a, const struct stat *b)
{
    if (a->st_dev != b->st_dev)
        return a->st_dev < b->st_dev ? -1 : 1;
    if (a->st_ino != b->st_ino)
        return a->st_ino < b->st_ino ? -1 : 1;
    return 0;
}

struct err *file_read_all(const char *path, size_t bytes_max, void **out_data, size_t *out_len)
{
    /* O_NONBLOCK: opening a FIFO that somebody put there must not hang. */
    CLEANUP(cleanup_fd) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return err_errno(errno, "open '%s'", path);

    struct stat status;
    if (fstat(fd, &status) != 0)
        return err_errno(errno, "look at '%s'", path);
    if (!S_ISREG(status.st_mode))
        return err_new(ERR_INVALID, "read '%s': not a regular file", path);
    if ((uint64_t)status.st_size > bytes_max)
        return err_new(ERR_INVALID, "read '%s': %lld bytes; the most is %zu", path,
                       (long long)status.st_size, bytes_max);

    size_t len = (size_t)status.st_size;
    CLEANUP(cleanup_free) uint8_t *data = malloc(len + 1);
    if (data == NULL)
        return err_new(ERR_NO_MEMORY, "read '%s'", path);
    TRY(file_read_at(fd, path, data, len, 0));
    data[len] = 0;

    *out_data = TAKE_PTR(data);
    *out_len = len;
    return NULL;
}

struct err *folder_of(const char *path, char **out_folder)
{
    const char *slash = strrchr(path, '/');
    char *folder = NULL;

    if (slash == NULL)
        folder = strdup(".");
    else if (slash == path)
        folder = strdup("/");
    else
        folder = strndup(path, (size_t)(slash - path));
    if (folder == NULL)
        return err_new(ERR_NO_MEMORY, "folder of '%s'", path);
    *out_folder = folder;
    return NULL;
}

struct err *path_absolute(const char *path, char **out_path)
{
    CLEANUP(cleanup_free) char *here = NULL;
    char *absolute = NULL;

    if (path[0] != '/') {
        here = get_current_dir_name();
        if (here == NULL)
            return err_errno(errno, "find the working directory");
    }
    if (asprintf(&absolute, "%s%s%s", here == NULL ? "" : here, here == NULL ? "" : "/", path) < 0)
        return err_new(ERR_NO_MEMORY, "path of '%s'", path);
    *out_path = absolute;
    return NULL;
}

const char *name_in_folder(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash == NULL ? path : slash + 1;
}

struct err *folder_sync(const char *path)
{
    CLEANUP(cleanup_fd) int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(errno, "open folder '%s'", path);
    if (fsync(fd) != 0)
        return err_errno(errno, "make folder '%s' durable", path);
    return NULL;
}

static struct err *sync_parent(const char *path)
{
    CLEANUP(cleanup_free) char *parent = NULL;

    TRY(folder_of(path, &parent));
    return folder_sync(parent);
}

struct err *folder_create(const char *path, unsigned mode)
{
    char partial[PATH_MAX];
    struct stat status;

    if (path[0] == '\0')
        return err_new(ERR_INVALID, "create folder: the path is empty");
    if (strlen(path) >= sizeof(partial))
        return err_new(ERR_INVALID, "create folder '%.64s...': the path is too long", path);
    for (size_t i = 1;; i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        memcpy(partial, path, i);
        partial[i] = '\0';
        if (mkdir(partial, (mode_t)mode) == 0)
            TRY(sync_parent(partial));
        else if (errno != EEXIST)
            return err_errno(errno, "create folder '%s'", partial);
        if (path[i] == '\0')
            break;
    }
    if (stat(path, &status) != 0 || !S_ISDIR(status.st_mode))
        return err_new(ERR_INVALID, "create folder '%s': a file is in its place", path);
    return NULL;
}

static struct err *write_new(const char *path, const void *data, size_t len, unsigned mode)
{
    /* What a crash left here may be readable by more people than this file should be. */
    (void)unlink(path);
    CLEANUP(cleanup_fd) int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, (mode_t)mode);
    if (fd < 0)
        return err_errno(errno, "create '%s'", path);
    TRY(file_write_at(fd, path, data, len, 0));
    if (fsync(fd) != 0)
        return err_errno(errno, "make '%s' durable", path);
    return NULL;
}

struct err *file_replace(const char *path, const void *data, size_t len, unsigned mode)
{
    char temporary[PATH_MAX];

    if (snprintf(temporary, sizeof(temporary), "%s.new", path) >= (int)sizeof(temporary))
        return err_new(ERR_INVALID, "write '%.64s...': the path is too long", path);

    struct err *err = write_new(temporary, data, len, mode);
    if (err == NULL && rename(temporary, path) != 0)
        err = err_errno(errno, "rename '%s' to '%s'", temporary, path);
    if (err != NULL) {
        (void)unlink(temporary);
        return err;
    }
    return sync_parent(path);
}
