/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_id.c - see store_id.h. Tested by: store_manifests_test.c
 *
 * Two who make one at the same time take turns by a lock on the file. What is not a whole id was
 * left by a crash before anybody knew it, and is written again.
 */
#include "snapshot/store_id.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file_io.h"

#define FILE_NAME   ".store-id"
#define FOLDER_MODE 0700
#define FILE_MODE   0600

bool store_id_is_valid(const char *text)
{
    return strlen(text) == STORE_ID_LEN && strspn(text, "0123456789abcdef") == STORE_ID_LEN;
}

static struct err *file_path(const char *folder, char **out_path)
{
    if (asprintf(out_path, "%s/" FILE_NAME, folder) < 0)
        return err_new(ERR_NO_MEMORY, "identify store '%s'", folder);
    return NULL;
}

/* Empty, if there is no whole one. */
static struct err *read_id(int fd, const char *path, struct store_id *out_id)
{
    ssize_t len = pread(fd, out_id->text, STORE_ID_LEN, 0);

    if (len < 0)
        return err_errno(errno, "read '%s'", path);
    out_id->text[len] = '\0';
    if (!store_id_is_valid(out_id->text))
        out_id->text[0] = '\0';
    return NULL;
}

struct err *store_id_read(const char *folder, struct store_id *out_id)
{
    CLEANUP(cleanup_free) char *path = NULL;
    struct store_id id = {""};

    TRY(file_path(folder, &path));
    CLEANUP(cleanup_fd) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && errno != ENOENT && errno != ENOTDIR)
        return err_errno(errno, "open '%s'", path);
    if (fd < 0 && access(folder, F_OK) != 0)
        return errno == ENOENT || errno == ENOTDIR
                   ? err_new(ERR_NOT_FOUND, "there is no folder '%s'", folder)
                   : err_errno(errno, "look for store '%s'", folder);
    if (fd >= 0)
        TRY(read_id(fd, path, &id));
    *out_id = id;
    return NULL;
}

static struct err *write_id(int fd, const char *path, const char *folder, struct store_id *out_id)
{
    unsigned char random[STORE_ID_LEN / 2];
    char line[STORE_ID_LEN + 2];

    if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
        return err_errno(errno, "draw random bytes for '%s'", path);
    for (size_t i = 0; i < sizeof(random); i++)
        (void)snprintf(out_id->text + 2 * i, 3, "%02x", random[i]);
    (void)snprintf(line, sizeof(line), "%s\n", out_id->text);
    TRY(file_write_at(fd, path, line, STORE_ID_LEN + 1, 0));
    TRY(file_sync(fd, path));
    return folder_sync(folder);
}

struct err *store_id_make(const char *folder, struct store_id *out_id)
{
    CLEANUP(cleanup_free) char *path = NULL;
    struct store_id id = {""};

    TRY(folder_create(folder, FOLDER_MODE));
    TRY(store_id_read(folder, &id));
    if (id.text[0] == '\0') {
        TRY(file_path(folder, &path));
        CLEANUP(cleanup_fd)
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, FILE_MODE);
        if (fd < 0)
            return err_errno(errno, "create '%s'", path);
        while (flock(fd, LOCK_EX) != 0)
            if (errno != EINTR)
                return err_errno(errno, "lock '%s'", path);
        TRY(read_id(fd, path, &id));
        if (id.text[0] == '\0')
            TRY(write_id(fd, path, folder, &id));
    }
    *out_id = id;
    return NULL;
}
