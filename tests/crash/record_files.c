/* SPDX-License-Identifier: Apache-2.0 */
/*
 * record_files.c - writes down what a program changes in the files of one folder, for tests that
 * cut the power.
 *
 * A shared object to be preloaded. RECORD_FOLDER is the folder, RECORD_LOG the file that gets a
 * line for each change, followed by the bytes of a write:
 *
 *   write INODE OFFSET LEN      size INODE BYTES     punch INODE OFFSET LEN
 *   create INODE NAME           rename OLD NEW       unlink NAME
 *   sync INODE                  syncdir              (successful ones)
 *
 * It knows the calls that storage/ makes. Tested by: tests/crash/layer_cut_test.py
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&(name)))dlsym(RTLD_NEXT, #name))

static int log_fd = -1;

static const char *folder(void)
{
    const char *path = getenv("RECORD_FOLDER");

    return path == NULL ? "/nowhere" : path;
}

__attribute__((format(printf, 1, 2))) static void note(const char *fmt, ...)
{
    char line[512];
    va_list args;

    if (log_fd < 0)
        log_fd =
            NEXT(open64)(getenv("RECORD_LOG"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    va_start(args, fmt);
    int len = vsnprintf(line, sizeof(line), fmt, args);
    va_end(args);
    if (len < 0 || write(log_fd, line, (size_t)len) != len)
        abort();
}

/* The name in the folder; NULL: somewhere else. */
static const char *name_in_folder(const char *path)
{
    const char *slash = strrchr(path, '/');
    size_t len = strlen(folder());

    if (slash == NULL)
        return path; /* the program runs in the folder */
    return strncmp(path, folder(), len) == 0 && path + len == slash ? slash + 1 : NULL;
}

/* Is it a file, or the folder itself, that is recorded? */
static bool is_recorded(int fd, struct stat *out_status)
{
    struct stat parent;

    return fstat(fd, out_status) == 0 && stat(folder(), &parent) == 0 &&
           out_status->st_dev == parent.st_dev &&
           (S_ISREG(out_status->st_mode) || out_status->st_ino == parent.st_ino);
}

/* Below are the C library's own functions, whose parameters have reserved names there.
 * NOLINTBEGIN(readability-inconsistent-declaration-parameter-name) */
int open64(const char *path, int flags, ...)
{
    va_list args;

    va_start(args, flags);
    int mode = (flags & O_CREAT) != 0 ? va_arg(args, int) : 0;
    va_end(args);
    int fd = NEXT(open64)(path, flags, mode);
    struct stat status;
    if (fd >= 0 && (flags & O_CREAT) != 0 && name_in_folder(path) != NULL &&
        fstat(fd, &status) == 0)
        note("create %llu %s\n", (unsigned long long)status.st_ino, name_in_folder(path));
    return fd;
}

/* Noted before it happens: a cut may keep any of it. */
ssize_t pwritev64(int fd, const struct iovec *iovs, int count, off64_t offset)
{
    struct stat status;
    size_t len = 0;

    for (int i = 0; i < count; i++)
        len += iovs[i].iov_len;
    if (is_recorded(fd, &status)) {
        note("write %llu %llu %zu\n", (unsigned long long)status.st_ino, (unsigned long long)offset,
             len);
        if (writev(log_fd, iovs, count) != (ssize_t)len)
            abort();
    }
    return NEXT(pwritev64)(fd, iovs, count, offset);
}

int fallocate64(int fd, int mode, off64_t offset, off64_t len)
{
    struct stat status;

    if ((mode & FALLOC_FL_PUNCH_HOLE) != 0 && is_recorded(fd, &status))
        note("punch %llu %llu %llu\n", (unsigned long long)status.st_ino,
             (unsigned long long)offset, (unsigned long long)len);
    return NEXT(fallocate64)(fd, mode, offset, len);
}

int ftruncate64(int fd, off64_t bytes)
{
    struct stat status;

    if (is_recorded(fd, &status))
        note("size %llu %llu\n", (unsigned long long)status.st_ino, (unsigned long long)bytes);
    return NEXT(ftruncate64)(fd, bytes);
}

static void note_sync(int fd)
{
    struct stat status;

    if (!is_recorded(fd, &status))
        return;
    if (S_ISDIR(status.st_mode))
        note("syncdir\n");
    else
        note("sync %llu\n", (unsigned long long)status.st_ino);
}

int fdatasync(int fd)
{
    int result = NEXT(fdatasync)(fd);

    if (result == 0)
        note_sync(fd);
    return result;
}

int fsync(int fd)
{
    int result = NEXT(fsync)(fd);

    if (result == 0)
        note_sync(fd);
    return result;
}

int rename(const char *old, const char *new)
{
    int result = NEXT(rename)(old, new);

    if (result == 0 && name_in_folder(new) != NULL)
        note("rename %s %s\n", name_in_folder(old), name_in_folder(new));
    return result;
}

int unlink(const char *path)
{
    int result = NEXT(unlink)(path);

    if (result == 0 && name_in_folder(path) != NULL)
        note("unlink %s\n", name_in_folder(path));
    return result;
}
/* NOLINTEND(readability-inconsistent-declaration-parameter-name) */
