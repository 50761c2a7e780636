/* SPDX-License-Identifier: Apache-2.0 */
/*
 * overlay_file.c - see overlay_file.h.
 * Tested by: disk_image_test.c
 */
#include "storage/overlay_file.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/file_io.h"
#include "storage/host_file.h"
#include "storage/qcow/qcow_create.h"

#define NUMBER_DIGITS 6u
#define NUMBER_MAX    999999u
#define SUFFIX        ".qcow2"
#define OVERLAY_MODE  0644

/* ".000001" at `text`, followed by the end or by `after`? */
static bool parse_number(const char *text, const char *after, unsigned *out_number)
{
    unsigned number = 0;

    if (*text++ != '.')
        return false;
    for (unsigned i = 0; i < NUMBER_DIGITS; i++, text++) {
        if (!isdigit((unsigned char)*text))
            return false;
        number = number * 10 + (unsigned)(*text - '0');
    }
    *out_number = number;
    return strcmp(text, after) == 0;
}

/* The name without its last extension and without a layer's number. */
static size_t stem_len(const char *name)
{
    const char *dot = strrchr(name, '.');
    size_t len = dot == NULL || dot == name ? strlen(name) : (size_t)(dot - name);
    unsigned number;

    if (len > NUMBER_DIGITS + 1 && strcmp(name + len, SUFFIX) == 0 &&
        parse_number(name + len - NUMBER_DIGITS - 1, SUFFIX, &number))
        len -= NUMBER_DIGITS + 1;
    return len;
}

static bool ends_in(const char *name, size_t len, const char *suffix)
{
    size_t suffix_len = strlen(suffix);

    return len > suffix_len && memcmp(name + len - suffix_len, suffix, suffix_len) == 0;
}

enum overlay_file_kind overlay_file_look(const char *path, const char *name, unsigned *out_number)
{
    CLEANUP(cleanup_free) char *image = NULL;
    size_t len = stem_len(name_in_folder(path));
    bool is_merging = ends_in(name, strlen(name), OVERLAY_FILE_MERGING_SUFFIX);

    *out_number = 0;
    image = strndup(name, strlen(name) - (is_merging ? strlen(OVERLAY_FILE_MERGING_SUFFIX) : 0));
    if (image == NULL || stem_len(image) != len || strncmp(image, name_in_folder(path), len) != 0)
        return OVERLAY_FILE_OTHER;
    bool is_numbered = parse_number(image + len, SUFFIX, out_number);
    if (!is_numbered)
        *out_number = 0;
    if (is_merging)
        return OVERLAY_FILE_MERGING;
    return is_numbered ? OVERLAY_FILE_OVERLAY : OVERLAY_FILE_BASE;
}

/* 0: there is none. */
static struct err *newest_number(const char *folder_path, const char *name, unsigned *out_number)
{
    CLEANUP(cleanup_folder) DIR *folder = opendir(folder_path);
    size_t len = stem_len(name);
    unsigned newest = 0, number;

    if (folder == NULL)
        return err_errno(errno, "look for overlays in '%s'", folder_path);
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(folder);
        if (entry == NULL && errno != 0)
            return err_errno(errno, "look for overlays in '%s'", folder_path);
        if (entry == NULL)
            break;
        if (strncmp(entry->d_name, name, len) == 0 &&
            parse_number(entry->d_name + len, SUFFIX, &number) && number > newest)
            newest = number;
    }
    *out_number = newest;
    return NULL;
}

static struct err *path_of_number(const char *folder, const char *name, unsigned number,
                                  char **out_path)
{
    char *path;

    if (asprintf(&path, "%s/%.*s.%06u" SUFFIX, folder, (int)stem_len(name), name, number) < 0)
        return err_new(ERR_NO_MEMORY, "overlay of '%s'", name);
    *out_path = path;
    return NULL;
}

struct err *overlay_file_next(const char *path, char **out_path)
{
    CLEANUP(cleanup_free) char *folder = NULL;
    unsigned number;

    TRY(folder_of(path, &folder));
    TRY(newest_number(folder, name_in_folder(path), &number));
    if (number == NUMBER_MAX)
        return err_new(ERR_INVALID, "image '%s' has the largest number of an overlay already",
                       path);
    return path_of_number(folder, name_in_folder(path), number + 1, out_path);
}

struct err *overlay_file_newest(const char *path, char **out_path)
{
    CLEANUP(cleanup_free) char *folder = NULL;
    unsigned number;

    TRY(folder_of(path, &folder));
    TRY(newest_number(folder, name_in_folder(path), &number));
    *out_path = NULL;
    return number == 0 ? NULL : path_of_number(folder, name_in_folder(path), number, out_path);
}

struct err *overlay_file_sibling(const char *path, const char *suffix, char **out_path)
{
    CLEANUP(cleanup_free) char *folder = NULL;
    const char *name = name_in_folder(path);

    TRY(folder_of(path, &folder));
    if (asprintf(out_path, "%s/%.*s.%s", folder, (int)stem_len(name), name, suffix) < 0)
        return err_new(ERR_NO_MEMORY, "'%s' beside '%s'", suffix, path);
    return NULL;
}

struct err *overlay_file_backing_name(const char *path, const char *backing_path, char **out_name)
{
    CLEANUP(cleanup_free) char *folder = NULL;
    CLEANUP(cleanup_free) char *backing_folder = NULL;
    struct stat status, backing_status;

    TRY(folder_of(path, &folder));
    TRY(folder_of(backing_path, &backing_folder));
    if (stat(folder, &status) != 0)
        return err_errno(errno, "folder '%s'", folder);
    if (stat(backing_folder, &backing_status) != 0)
        return err_errno(errno, "folder '%s'", backing_folder);

    char *name = file_is_same(&status, &backing_status) ? strdup(name_in_folder(backing_path))
                                                        : realpath(backing_path, NULL);
    if (name == NULL)
        return err_errno(errno, "backing file '%s'", backing_path);
    *out_name = name;
    return NULL;
}

struct err *overlay_file_fill(int fd, const char *path, const struct overlay_content *content)
{
    struct host_file *file = NULL;
    struct qcow_create_options options = {
        .virtual_bytes = content->virtual_bytes,
        .version = 3,
        .cluster_bits = QCOW_STATIC_CLUSTER_BITS,
        .has_extended_l2 = true,
        .is_static = true,
        .backing_name = content->backing_name,
        .backing_format = content->backing_format,
    };

    TRY(host_file_from_fd(fd, path, &file));
    struct err *err = qcow_create(file, &options);
    host_file_destroy(file);
    return err;
}

struct err *overlay_file_create(const char *path, const char *backing_path,
                                const char *backing_format, uint64_t virtual_bytes)
{
    CLEANUP(cleanup_free) char *name = NULL;
    CLEANUP(cleanup_free) char *folder = NULL;

    TRY(folder_of(path, &folder));
    TRY(overlay_file_backing_name(path, backing_path, &name));
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, OVERLAY_MODE);
    if (fd < 0)
        return err_errno(errno, "create overlay '%s'", path);
    struct err *err = overlay_file_fill(fd, path,
                                        &(struct overlay_content){.backing_name = name,
                                                                  .backing_format = backing_format,
                                                                  .virtual_bytes = virtual_bytes});
    if (err == NULL)
        err = folder_sync(folder);
    if (err != NULL) {
        (void)unlink(path);
        return err_wrap(err, "create overlay '%s'", path);
    }
    return NULL;
}
