/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_lock.c - see image_lock.h.
 *
 * A shared lock on byte 100 + p says "I use permission p", one on byte 200 + p says "I do not let
 * others use p". Who wants p checks that nobody holds 200 + p; who denies p, that nobody holds
 * 100 + p. The own locks are set before that check, so that of two who race at least one sees
 * the other.
 */
#include "storage/image_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>

#include "base/checked_math.h"

enum { PERMISSION_READ = 0, PERMISSION_WRITE = 1, PERMISSION_RESIZE = 3, PERMISSION_COUNT = 4 };
enum { USED_BASE = 100, DENIED_BASE = 200, ALL_BYTES = 200 };

struct role_row {
    unsigned used;   /* bit p: this role uses permission p */
    unsigned denied; /* bit p: it denies p to others */
};

static const struct role_row roles[] = {
    [IMAGE_LOCK_NONE] = {0, 0},
    [IMAGE_LOCK_READER] = {1u << PERMISSION_READ, 1u << PERMISSION_WRITE | 1u << PERMISSION_RESIZE},
    [IMAGE_LOCK_WRITER] = {1u << PERMISSION_READ | 1u << PERMISSION_WRITE | 1u << PERMISSION_RESIZE,
                           1u << PERMISSION_WRITE | 1u << PERMISSION_RESIZE},
};

static struct flock byte_lock(int type, int offset)
{
    return (struct flock){
        .l_type = (short)type, .l_whence = SEEK_SET, .l_start = offset, .l_len = 1};
}

static struct err *set_byte(int fd, const char *path, int type, int offset)
{
    struct flock lock = byte_lock(type, offset);

    if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
        return NULL;
    if (errno == EAGAIN || errno == EACCES)
        return err_new(ERR_DENIED, "image '%s' is in use by another process", path);
    return err_errno(errno, "lock image '%s'", path);
}

struct err *image_lock_is_written(int fd, const char *path, bool *out_is_written)
{
    struct flock lock = byte_lock(F_WRLCK, USED_BASE + PERMISSION_WRITE);

    if (fcntl(fd, F_OFD_GETLK, &lock) != 0)
        return err_errno(errno, "look for locks of image '%s'", path);
    *out_is_written = lock.l_type != F_UNLCK;
    return NULL;
}

struct err *image_lock_is_held(int fd, const char *path, bool *out_is_held)
{
    struct flock lock = byte_lock(F_WRLCK, USED_BASE);

    lock.l_len = ALL_BYTES;
    if (fcntl(fd, F_OFD_GETLK, &lock) != 0)
        return err_errno(errno, "look for locks of image '%s'", path);
    *out_is_held = lock.l_type != F_UNLCK;
    return NULL;
}

static struct err *check_byte(int fd, const char *path, int offset)
{
    struct flock lock = byte_lock(F_WRLCK, offset);

    if (fcntl(fd, F_OFD_GETLK, &lock) != 0)
        return err_errno(errno, "lock image '%s'", path);
    if (lock.l_type != F_UNLCK)
        return err_new(ERR_DENIED, "image '%s' is in use by another process; stop it first", path);
    return NULL;
}

static struct err *take_and_check(int fd, const char *path, const struct role_row *row)
{
    for (int p = 0; p < PERMISSION_COUNT; p++) {
        if (row->used >> p & 1)
            TRY(set_byte(fd, path, F_RDLCK, USED_BASE + p));
        if (row->denied >> p & 1)
            TRY(set_byte(fd, path, F_RDLCK, DENIED_BASE + p));
    }
    for (int p = 0; p < PERMISSION_COUNT; p++) {
        if (row->used >> p & 1)
            TRY(check_byte(fd, path, DENIED_BASE + p));
        if (row->denied >> p & 1)
            TRY(check_byte(fd, path, USED_BASE + p));
    }
    return NULL;
}

struct err *image_lock_lower(int fd, const char *path, enum image_lock_role role)
{
    for (int p = 0; p < PERMISSION_COUNT; p++) {
        if (!(roles[role].used >> p & 1))
            TRY(set_byte(fd, path, F_UNLCK, USED_BASE + p));
        if (!(roles[role].denied >> p & 1))
            TRY(set_byte(fd, path, F_UNLCK, DENIED_BASE + p));
    }
    return NULL;
}

struct err *image_lock_take(int fd, const char *path, enum image_lock_role role)
{
    struct err *err = take_and_check(fd, path, &roles[role]);

    if (err != NULL)
        err_free(image_lock_lower(fd, path, IMAGE_LOCK_NONE));
    return err;
}
