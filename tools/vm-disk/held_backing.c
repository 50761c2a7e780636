/* SPDX-License-Identifier: Apache-2.0 */
/*
 * held_backing.c - see held_backing.h. Tested by: tests/disk, tests/system
 */
#include "tools/vm-disk/held_backing.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file_io.h"

struct err *held_backing_path(const char *image, const char *backing, char **out_path)
{
    CLEANUP(cleanup_free) char *folder = NULL;

    TRY(folder_of(image, &folder));
    if (asprintf(out_path, "%s%s%s", backing[0] == '/' ? "" : folder, backing[0] == '/' ? "" : "/",
                 backing) < 0)
        return err_new(ERR_NO_MEMORY, "backing image");
    return NULL;
}

static bool is_passed_over(const struct err *err)
{
    return err_kind(err) == ERR_DENIED || err_kind(err) == ERR_NOT_FOUND ||
           err_errnum(err) == ENOENT;
}

/* The image's own folder is the last. */
static struct err *take(const struct held_backing *backing, const char *path,
                        const char *const *folders, struct held_layers **out_held)
{
    size_t count = backing->folders->count;
    struct held_disk disk = {.path = path,
                             .format = backing->format,
                             .is_read_only = true,
                             .overlay_folder = folders[count]};
    struct held_purpose purpose = {.folders = folders, .folder_count = count + 1};

    return held_layers_take(purpose, &disk, 1, out_held);
}

struct err *held_backing_take(const struct held_backing *backing, struct held_layers **out_held)
{
    CLEANUP(cleanup_free) char *own = NULL;
    CLEANUP(cleanup_free) char *path = NULL;
    size_t count = backing->folders->count;

    TRY(folder_of(backing->image, &own));
    TRY(held_backing_path(backing->image, backing->backing, &path));
    CLEANUP(cleanup_free) const char **folders = calloc(count + 1, sizeof(*folders));
    if (folders == NULL)
        return err_new(ERR_NO_MEMORY, "backing image");
    for (size_t i = 0; i < count; i++)
        folders[i] = backing->folders->values[i];
    folders[count] = own;
    struct err *err = take(backing, path, folders, out_held);
    if (err == NULL || !is_passed_over(err))
        return err;
    err_free(err);
    return NULL;
}
