/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_folders.c - see image_folders.h.
 *
 * A name is made absolute as text; the part behind an allowed folder is then opened from that
 * folder's descriptor with RESOLVE_BENEATH, so the kernel decides, not the text. A folder is known
 * by the name that was given and by its real one, because images may use either.
 */
#include "storage/image_folders.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file_io.h"
#include "base/limits.h"

struct image_folder {
    int fd;          /* owned */
    char *given;     /* owned; absolute, as it was named */
    char *real_path; /* owned; without symbolic links */
};

struct image_folders {
    struct image_folder list[IMAGE_FOLDERS_MAX + 1]; /* the first is the image's own */
    size_t count;
};

/* Removes "." and ".." from an absolute path, in place. */
static void normalise(char *path)
{
    char *out = path;

    for (const char *in = path; *in != '\0';) {
        size_t len = strcspn(in + 1, "/");
        if (len == 2 && in[1] == '.' && in[2] == '.') {
            do
                out -= out > path;
            while (out > path && *out != '/');
        } else if (len > 1 || (len == 1 && in[1] != '.')) {
            memmove(out, in, len + 1);
            out += len + 1;
        }
        in += len + 1;
    }
    if (out == path)
        *out++ = '/';
    *out = '\0';
}

/* `name` as seen from `folder`; both may be relative. */
static struct err *absolute_path(const char *folder, const char *name, char **out_path)
{
    char here[PATH_BYTES_MAX + 1] = "";
    char *path = NULL;

    if (name[0] != '/' && folder[0] != '/' && getcwd(here, sizeof(here)) == NULL)
        return err_errno(errno, "find the working directory");
    if (asprintf(&path, "%s/%s/%s", here, name[0] == '/' ? "" : folder, name) < 0)
        return err_new(ERR_NO_MEMORY, "image '%s'", name);
    normalise(path);
    *out_path = path;
    return NULL;
}

static struct err *add_folder(struct image_folders *folders, const char *path)
{
    struct image_folder *folder = &folders->list[folders->count];

    *folder = (struct image_folder){.fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC)};
    if (folder->fd < 0)
        return err_errno(errno, "folder of images '%s'", path);
    folders->count++;
    folder->real_path = realpath(path, NULL);
    if (folder->real_path == NULL)
        return err_errno(errno, "folder of images '%s'", path);
    return absolute_path(".", path, &folder->given);
}

void image_folders_destroy(struct image_folders *folders)
{
    if (folders == NULL)
        return;
    for (size_t i = 0; i < folders->count; i++) {
        (void)close(folders->list[i].fd);
        free(folders->list[i].given);
        free(folders->list[i].real_path);
    }
    free(folders);
}

struct err *image_folders_create(const char *path, const char *const *named, size_t count,
                                 struct image_folders **out_folders)
{
    CLEANUP(cleanup_free) char *own = NULL;

    if (count > IMAGE_FOLDERS_MAX)
        return err_new(ERR_INVALID, "%zu folders of images; the most is %u", count,
                       IMAGE_FOLDERS_MAX);
    TRY(folder_of(path, &own));
    struct image_folders *folders = calloc(1, sizeof(*folders));
    if (folders == NULL)
        return err_new(ERR_NO_MEMORY, "open image '%s'", path);

    struct err *err = add_folder(folders, own);
    for (size_t i = 0; i < count && err == NULL; i++)
        err = add_folder(folders, named[i]);
    if (err != NULL) {
        image_folders_destroy(folders);
        return err;
    }
    *out_folders = folders;
    return NULL;
}

/* The part of `path` behind the folder, or NULL. */
static const char *part_behind(const char *path, const char *folder)
{
    size_t len = strcmp(folder, "/") == 0 ? 0 : strlen(folder);

    return strncmp(path, folder, len) == 0 && path[len] == '/' ? path + len + 1 : NULL;
}

static int open_beneath(int folder_fd, const char *name, uint64_t flags)
{
    struct open_how how = {.flags = flags | O_CLOEXEC,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};

    return (int)syscall(SYS_openat2, folder_fd, name, &how, sizeof(how));
}

/* Looked at before it is opened, because opening a device or a pipe can have effects; and again
 * afterwards, because the name may have come to mean something else. Gives 0 or an errno; ENOTBLK:
 * it is not a regular file. */
static int open_regular(int folder_fd, const char *name, int *out_fd)
{
    CLEANUP(cleanup_fd) int look_fd = open_beneath(folder_fd, name, O_PATH);
    struct stat status;

    if (look_fd < 0 || fstat(look_fd, &status) != 0)
        return errno;
    if (!S_ISREG(status.st_mode))
        return ENOTBLK;
    CLEANUP(cleanup_fd) int fd = open_beneath(folder_fd, name, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 || fstat(fd, &status) != 0)
        return errno;
    if (!S_ISREG(status.st_mode))
        return ENOTBLK;
    *out_fd = TAKE_FD(fd);
    return 0;
}

static struct err *outside(const struct image_folders *folders, const char *image_path,
                           const char *path)
{
    CLEANUP(cleanup_free) char *folder = NULL;

    TRY(folder_of(path, &folder));
    return err_new(ERR_DENIED,
                   "image '%s' names the backing file '%s', which is not in a folder that backing "
                   "files may come from ('%s'%s); if you trust it, allow it with --image-folder %s",
                   image_path, path, folders->list[0].given,
                   folders->count > 1 ? " and those of --image-folder" : "", folder);
}

static struct err *leads_out(const char *image_path, const char *path, const char *folder)
{
    return err_new(ERR_DENIED,
                   "image '%s' names the backing file '%s', where a symbolic link leads out of the "
                   "folder '%s'; allow the folder of the file itself with --image-folder, and name "
                   "it there: 'qemu-img rebase -u -b FILE -F FORMAT IMAGE'",
                   image_path, path, folder);
}

static struct err *refusal(const char *image_path, const char *path, const char *folder, int error)
{
    switch (error) {
    case ENOENT: return err_new(ERR_NOT_FOUND, "there is no image '%s'", path);
    case EXDEV:
    case ELOOP: return leads_out(image_path, path, folder);
    case ENOTBLK:
        return err_new(ERR_INVALID,
                       "image '%s' is not a regular file, and a backing file has to be one", path);
    case EACCES:
    case EPERM: return err_new(ERR_DENIED, "open image '%s': %s", path, strerror(error));
    default: return err_errno(error, "open image '%s'", path);
    }
}

/* Folders may lie in each other, so another one may allow what the first refuses. */
static struct err *open_in_any(const struct image_folders *folders, const char *image_path,
                               const char *path, int *out_fd)
{
    struct err *err = NULL;

    for (size_t i = 0; i < folders->count; i++) {
        const struct image_folder *folder = &folders->list[i];
        const char *name = part_behind(path, folder->given);
        if (name == NULL)
            name = part_behind(path, folder->real_path);
        if (name == NULL)
            continue;
        int error = open_regular(folder->fd, name, out_fd);
        err_free(err);
        if (error == 0)
            return NULL;
        err = refusal(image_path, path, folder->given, error);
    }
    return err != NULL ? err : outside(folders, image_path, path);
}

/* "json:{...}", "nbd://..." and the like reach beyond files. */
static bool is_plain_path(const char *name)
{
    const char *colon = strchr(name, ':'), *slash = strchr(name, '/');

    return name[0] != '\0' && (colon == NULL || (slash != NULL && slash < colon));
}

struct err *image_folders_open(const struct image_folders *folders, const char *image_path,
                               const char *backing_name, int *out_fd, char **out_path)
{
    CLEANUP(cleanup_free) char *image_folder = NULL;
    CLEANUP(cleanup_free) char *path = NULL;

    if (!is_plain_path(backing_name))
        return err_new(ERR_INCOMPATIBLE,
                       "image '%s' names a backing file that is not a plain path; change it with "
                       "'qemu-img rebase -u'",
                       image_path);
    TRY(folder_of(image_path, &image_folder));
    TRY(absolute_path(image_folder, backing_name, &path));
    TRY(open_in_any(folders, image_path, path, out_fd));
    *out_path = TAKE_PTR(path);
    return NULL;
}
