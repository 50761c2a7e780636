/* SPDX-License-Identifier: Apache-2.0 */
/*
 * move_lock.c - see move_lock.h. Tested by: tests/system.
 */
#include "tools/vm-migrate/move_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "control/runtime_folder.h"

static struct err *open_file(const char *name, int *out_fd)
{
    CLEANUP(cleanup_free) char *folder = NULL;
    CLEANUP(cleanup_free) char *path = NULL;

    TRY(machine_name_check(name));
    TRY(runtime_folder(&folder));
    if (asprintf(&path, "%s/%s.move", folder, name) < 0) {
        path = NULL;
        return err_new(ERR_NO_MEMORY, "move of '%s'", name);
    }
    *out_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    return *out_fd >= 0 ? NULL : err_errno(errno, "open '%s'", path);
}

struct err *move_lock_take(const char *name)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = -1;

    TRY(open_file(name, &fd));
    if (fcntl(fd, F_SETLK, &lock) == 0)
        return NULL; /* kept open: closing it would release the lock */
    int errnum = errno;
    close(fd);
    if (errnum == EACCES || errnum == EAGAIN)
        return err_new(ERR_STATE,
                       "machine '%s' is being moved already; 'vm-migrate --cancel %s' stops that",
                       name, name);
    return err_errno(errnum, "lock the move of '%s'", name);
}

struct err *move_lock_cancel(const char *name)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    CLEANUP(cleanup_fd) int fd = -1;

    TRY(open_file(name, &fd));
    if (fcntl(fd, F_GETLK, &lock) != 0)
        return err_errno(errno, "find the move of '%s'", name);
    if (lock.l_type == F_UNLCK)
        return err_new(ERR_NOT_FOUND, "machine '%s' is not being moved", name);
    if (kill(lock.l_pid, SIGINT) != 0)
        return err_errno(errno, "cancel the move of '%s'", name);
    return NULL;
}
