/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unix_socket.c - see unix_socket_internal.h. Tested by: control_server_test.c
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/cleanup.h"
#include "base/file_io.h"
#include "control/unix_socket_internal.h"

#define BACKLOG 16

static struct err *make_address(const char *path, struct sockaddr_un *out_address)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t len = strlen(path);
    if (len >= sizeof(address.sun_path))
        return err_new(ERR_INVALID,
                       "socket path '%s' is longer than %zu bytes; set FERRY_RUNTIME_DIR to a "
                       "shorter folder",
                       path, sizeof(address.sun_path) - 1);
    memcpy(address.sun_path, path, len + 1);
    *out_address = address;
    return NULL;
}

struct err *unix_socket_connect(const char *path, int *out_fd, bool *out_is_alive)
{
    struct sockaddr_un address;
    TRY(make_address(path, &address));
    CLEANUP(cleanup_fd) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_errno(errno, "create a socket");
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        if (errno != ENOENT && errno != ECONNREFUSED)
            return err_errno(errno, "connect to '%s'", path);
        *out_is_alive = false;
        return NULL;
    }
    *out_is_alive = true;
    *out_fd = TAKE_FD(fd);
    return NULL;
}

/* Starting machines take turns: between the look and the bind nobody else may bind. */
static struct err *lock_folder(const char *path, int *out_fd)
{
    CLEANUP(cleanup_free) char *folder = NULL;
    TRY(folder_of(path, &folder));
    CLEANUP(cleanup_fd) int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || flock(fd, LOCK_EX) != 0)
        return err_errno(errno, "lock folder '%s'", folder);
    *out_fd = TAKE_FD(fd);
    return NULL;
}

struct err *unix_socket_listen(const char *path, int *out_fd)
{
    struct sockaddr_un address;
    TRY(make_address(path, &address));
    CLEANUP(cleanup_fd) int folder_lock = -1;
    TRY(lock_folder(path, &folder_lock));

    CLEANUP(cleanup_fd) int other = -1;
    bool is_alive;
    TRY(unix_socket_connect(path, &other, &is_alive));
    if (is_alive)
        return err_new(ERR_STATE, "a machine of that name is running");
    if (unlink(path) != 0 && errno != ENOENT)
        return err_errno(errno, "remove the old socket '%s'", path);

    CLEANUP(cleanup_fd) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_errno(errno, "create a socket");
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0 || chmod(path, 0600) != 0 ||
        listen(fd, BACKLOG) != 0)
        return err_errno(errno, "listen at '%s'", path);
    *out_fd = TAKE_FD(fd);
    return NULL;
}

struct err *unix_socket_check_peer(int fd)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) != 0)
        return err_errno(errno, "ask who connected");
    if (peer.uid != geteuid() && peer.uid != 0)
        return err_new(ERR_DENIED, "user %u may not control the machines of user %u", peer.uid,
                       geteuid());
    return NULL;
}
