/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_source.c - see disk_source.h. Tested by: tests/disk
 */
#include "tools/vm-disk/disk_source.h"

#include <string.h>

#include "base/cleanup.h"
#include "storage/image_folders.h"
#include "storage/qcow/qcow_image.h"

DEFINE_CLEANUP(folders, struct image_folders, image_folders_destroy)

static struct err *explain_lock(struct err *err, const struct disk_source *source,
                                enum disk_image_access access)
{
    if (err == NULL || err_kind(err) != ERR_DENIED || source->is_shared ||
        strstr(err_message(err), "in use") == NULL)
        return err;
    struct err *more =
        err_new(ERR_DENIED, "%s%s", err_message(err),
                access == DISK_IMAGE_READ_ONLY
                    ? ": a machine that runs may be writing to it (--share reads it nevertheless)"
                    : ": a machine that runs, or another program, has it open");

    err_free(err);
    return more;
}

static struct err *show_snapshot(const struct disk_source *source, const char *path,
                                 const struct image_chain *chain)
{
    if (source->snapshot == NULL)
        return NULL;
    if (strcmp(source->format, "qcow2") != 0)
        return err_new(ERR_INVALID, "'%s' is a raw image, which holds no snapshots", path);
    return qcow_image_show_snapshot(chain->top.block, source->snapshot);
}

struct err *disk_source_open(const struct disk_source *source, const char *path,
                             enum disk_image_access access, struct image_chain *out_chain)
{
    CLEANUP(cleanup_folders) struct image_folders *folders = NULL;
    struct disk_image_name name = {.path = path, .format = source->format, .access = access};
    bool is_unlocked = source->is_shared && access == DISK_IMAGE_READ_ONLY;

    TRY(image_folders_create(path, source->folders.values, source->folders.count, &folders));
    TRY(explain_lock(image_chain_open(&name, folders,
                                      is_unlocked ? IMAGE_LAYER_UNLOCKED : IMAGE_LAYER_LOCKED,
                                      out_chain),
                     source, access));
    struct err *err = show_snapshot(source, path, out_chain);
    if (err != NULL)
        disk_chain_close(out_chain);
    return err;
}

void disk_chain_close(struct image_chain *chain)
{
    if (chain->top.block != NULL)
        err_free(block_close(chain->top.block)); /* nothing was written through it */
    chain->top.block = NULL;
}
