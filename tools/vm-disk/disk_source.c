/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_source.c - see disk_source.h. Tested by: tests/disk
 */
#include "tools/vm-disk/disk_source.h"

#include <string.h>

#include "base/cleanup.h"
#include "storage/image_folders.h"

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

struct err *disk_source_open(const struct disk_source *source, const char *path,
                             enum disk_image_access access, struct image_chain *out_chain)
{
    CLEANUP(cleanup_folders) struct image_folders *folders = NULL;
    struct disk_image_name name = {.path = path, .format = source->format, .access = access};

    TRY(image_folders_create(path, source->folders.values, source->folders.count, &folders));
    return explain_lock(image_chain_open(&name, folders,
                                         source->is_shared && access == DISK_IMAGE_READ_ONLY
                                             ? IMAGE_LAYER_UNLOCKED
                                             : IMAGE_LAYER_LOCKED,
                                         out_chain),
                        source, access);
}

void disk_chain_close(struct image_chain *chain)
{
    if (chain->top.block != NULL)
        err_free(block_close(chain->top.block)); /* nothing was written through it */
    chain->top.block = NULL;
}
