/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_image.h - opens images by path and format, with their backing chain and locks, and switches
 * a running disk to an overlay.
 *
 * Formats are never guessed: "raw" is raw whatever it contains, and a qcow2 image names its
 * backing file's format or is refused. An image without write permission bits is sealed, a layer
 * that a snapshot holds: opening it for writing is refused with the name of the newest overlay.
 * Locks are QEMU's OFD byte locks, so that qemu-img refuses an image that a machine runs on.
 */
#ifndef STORAGE_DISK_IMAGE_H
#define STORAGE_DISK_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "storage/block.h"
#include "storage/host_file.h"

enum disk_image_access { DISK_IMAGE_READ_ONLY, DISK_IMAGE_WRITABLE };

struct disk_image_name {
    const char *path;
    const char *format; /* "raw" or "qcow2" */
    enum disk_image_access access;
    enum host_file_cache cache; /* of all layers */
    /* Where backing files may lie, beside the folder of the image; NULL: nowhere else. */
    const char *const *folders;
    size_t folder_count;
};

/* Opens with locks taken (ERR_DENIED when another process holds them) and the chain checked.
 * ERR_DENIED also when a backing file does not lie in an allowed folder. */
ERR_RESULT disk_image_open_named(const struct disk_image_name *name, struct block **out_block);

/* Could it be opened like that, apart from locks that another host still holds? Opens nothing for
 * writing, takes no locks: what a migration target checks before memory moves. */
ERR_RESULT disk_image_check_named(const struct disk_image_name *name, uint64_t *out_virtual_bytes);

/* Of an image whose backing files lie in its own folder. */
static inline ERR_RESULT disk_image_open(const char *path, const char *format,
                                         enum disk_image_access access, struct block **out_block)
{
    struct disk_image_name name = {.path = path, .format = format, .access = access};

    return disk_image_open_named(&name, out_block);
}

static inline ERR_RESULT disk_image_check(const char *path, const char *format,
                                          enum disk_image_access access,
                                          uint64_t *out_virtual_bytes)
{
    struct disk_image_name name = {.path = path, .format = format, .access = access};

    return disk_image_check_named(&name, out_virtual_bytes);
}

/* The next free overlay path for an image: dir/stem.000001.qcow2 and so on. free() the result. */
ERR_RESULT disk_image_next_overlay(const char *path, char **out_path);

/* Creates an empty overlay over `backing_path` (relative name stored when both share a folder),
 * durable when it returns, and not locked. The backing image may be in use. */
ERR_RESULT disk_image_create_overlay(const char *path, const char *backing_path,
                                     const char *backing_format, uint64_t virtual_bytes);

/* Would a switch be possible? What can be known before the pause: the disk is writable and not at
 * the most layers that a chain may have. */
ERR_RESULT disk_image_check_switch(struct block *block);

/* Opens and locks the overlay ahead of the switch to it, so that this opens nothing. The disk goes
 * on as before, also after an error. A disk that is closed or handed over forgets it. */
ERR_RESULT disk_image_prepare(struct block *block, const char *overlay_path);
void disk_image_unprepare(struct block *block);

/* The instant of a disk freeze: `block` (drained by the caller, writable) is flushed, sealed
 * (clean, mode 0444, reader lock) and becomes the backing of the overlay at overlay_path, which
 * was created with disk_image_create_overlay. On success *inout_block is the overlay. On failure
 * it is unchanged and still writable. */
ERR_RESULT disk_image_switch(struct block **inout_block, const char *path, const char *format,
                             const char *overlay_path);

/* Makes a writable, drained disk larger, durably; see image_layer_resize. ERR_STATE: it would
 * become smaller. An overlay that was prepared for a switch is forgotten: it has the old size. */
ERR_RESULT disk_image_grow(struct block *block, uint64_t virtual_bytes);

/* A layer of this name below the disk was merged with some that are below it (see layer_merge.h):
 * puts the new file in their place, under reads and writes. Gives how many layers fewer there are.
 */
ERR_RESULT disk_image_swap_layers(struct block *block, const char *path, unsigned *out_gone);

/* Gives up the locks of a drained disk for another host; the block refuses requests until
 * disk_image_take_back has taken them again and read the metadata anew. */
ERR_RESULT disk_image_hand_over(struct block *block);
ERR_RESULT disk_image_take_back(struct block *block);

#endif
