/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_facts.c - see image_facts.h. Tested by: tests/disk
 */
#include "tools/vm-disk/image_facts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/limits.h"
#include "storage/host_file.h"
#include "storage/image_layer.h"
#include "storage/image_lock.h"
#include "tools/vm-disk/image_file.h"

#define WRITE_BITS   (S_IWUSR | S_IWGRP | S_IWOTH)
#define SECTOR_BYTES ((uint64_t)512)

static struct err *look(int fd, const char *format, struct image_facts *facts)
{
    struct stat status;
    struct host_file *file = NULL;

    TRY(image_format_check(format, &facts->is_qcow));
    if (fstat(fd, &status) != 0)
        return err_errno(errno, "look at '%s'", facts->path);
    facts->device = status.st_dev;
    facts->inode = status.st_ino;
    facts->host_bytes = (uint64_t)status.st_blocks * 512;
    facts->is_sealed = S_ISREG(status.st_mode) && (status.st_mode & WRITE_BITS) == 0;
    TRY(image_lock_is_written(fd, facts->path, &facts->is_written));

    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (copy < 0)
        return err_errno(errno, "look at '%s'", facts->path);
    TRY(host_file_from_fd(copy, facts->path, &file));
    struct err *err = host_file_size(file, &facts->file_bytes);
    if (err == NULL && facts->is_qcow)
        err = err_wrap(qcow_header_read(file, &facts->header), "image '%s'", facts->path);
    host_file_destroy(file);
    facts->virtual_bytes =
        facts->is_qcow ? facts->header.virtual_bytes : align_up(facts->file_bytes, SECTOR_BYTES);
    return err;
}

/* Room for one more, which is zeroed. */
static struct image_facts *add(struct image_chain_facts *chain)
{
    struct image_facts *layers = realloc(chain->layers, (chain->count + 1) * sizeof(*layers));
    if (layers == NULL)
        return NULL;
    chain->layers = layers;
    memset(&layers[chain->count], 0, sizeof(*layers));
    return &layers[chain->count];
}

/* Takes the path. */
static struct err *look_at_next(struct image_chain_facts *chain, int fd, char *path,
                                const char *format)
{
    CLEANUP(cleanup_free) char *owned = path;
    struct image_facts *facts = add(chain);
    if (facts == NULL)
        return err_new(ERR_NO_MEMORY, "look at '%s'", path);

    facts->path = owned;
    TRY(look(fd, format, facts));
    for (size_t i = 0; i < chain->count; i++)
        if (chain->layers[i].device == facts->device && chain->layers[i].inode == facts->inode)
            return err_new(ERR_INVALID, "image '%s' is its own backing file", facts->path);
    owned = NULL;
    chain->count++;
    return NULL;
}

struct err *image_chain_look(const char *path, const char *format,
                             const struct image_folders *folders,
                             struct image_chain_facts *out_chain)
{
    struct image_chain_facts *chain = out_chain;
    CLEANUP(cleanup_fd) int fd = -1;

    *chain = (struct image_chain_facts){NULL, 0};
    TRY(image_layer_open_file(path, DISK_IMAGE_READ_ONLY, &fd));
    char *copy = strdup(path);
    if (copy == NULL)
        return err_new(ERR_NO_MEMORY, "look at '%s'", path);
    TRY(look_at_next(chain, fd, copy, format));
    for (;;) {
        const struct image_facts *above = &chain->layers[chain->count - 1];
        if (!above->is_qcow || above->header.backing_name[0] == '\0')
            return NULL;
        if (above->header.backing_format[0] == '\0')
            return err_new(ERR_INCOMPATIBLE,
                           "image '%s' does not say which format its backing image has, and "
                           "formats are never guessed",
                           above->path);
        if (chain->count > DISK_BACKING_DEPTH_MAX)
            return err_new(ERR_INVALID, "more than %u images below each other",
                           DISK_BACKING_DEPTH_MAX);
        char *below_path = NULL;
        int below_fd = -1;
        TRY(image_folders_open(folders, above->path, above->header.backing_name, &below_fd,
                               &below_path));
        char below_format[sizeof(above->header.backing_format)]; /* the list moves as it grows */
        memcpy(below_format, above->header.backing_format, sizeof(below_format));
        struct err *err = look_at_next(chain, below_fd, below_path, below_format);
        (void)close(below_fd);
        if (err != NULL)
            return err;
    }
}

void image_chain_facts_finish(struct image_chain_facts *chain)
{
    for (size_t i = 0; i < chain->count; i++)
        free(chain->layers[i].path);
    free(chain->layers);
    *chain = (struct image_chain_facts){NULL, 0};
}
