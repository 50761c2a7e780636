/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compare_command.c - see compare_command.h. Tested by: tests/disk
 */
#include "tools/vm-disk/compare_command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/limits.h"
#include "storage/disk_image.h"
#include "tools/program_json.h"
#include "tools/vm-disk/disk_progress.h"

#define CHUNK_BYTES (2 * MIB)

static struct {
    const char *formats[2];
    struct option_list folders;
    bool strict;
    bool json;
} settings;

#define SETTINGS __typeof__(settings)

static const struct option_row rows[] = {
    OPTION_TEXT("format", 'f', SETTINGS, formats[0], "FORMAT", "qcow2",
                "of the first image, qcow2 or raw"),
    OPTION_TEXT("other-format", 'F', SETTINGS, formats[1], "FORMAT", "qcow2",
                "of the second image"),
    OPTION_LIST("image-folder", 0, SETTINGS, folders, "FOLDER",
                "backing images may lie here, too; may be repeated"),
    OPTION_FLAG("strict", 's', SETTINGS, strict, "the sizes must be equal, too"),
    OPTION_FLAG("json", 0, SETTINGS, json, "print JSON"),
};

static const struct option_table table = {
    .program = "vm-disk compare",
    .arguments = "IMAGE IMAGE",
    .summary = "Says whether a guest would read the same from two images, and where not.",
    .rows = rows,
    .row_count = ARRAY_COUNT(rows),
    .operands_min = 2,
    .operands_max = 2,
};

struct comparison {
    struct block *disks[2]; /* owned */
    uint8_t *chunks[2];     /* owned */
};

static void finish(struct comparison *comparison)
{
    for (size_t i = 0; i < 2; i++) {
        if (comparison->disks[i] != NULL)
            err_free(block_close(comparison->disks[i])); /* nothing was written */
        free(comparison->chunks[i]);
    }
}

static struct err *open_both(const struct option_result *operands, struct comparison *comparison)
{
    for (size_t i = 0; i < 2; i++) {
        struct disk_image_name name = {.path = operands->operands[i],
                                       .format = settings.formats[i],
                                       .access = DISK_IMAGE_READ_ONLY,
                                       .folders = settings.folders.values,
                                       .folder_count = settings.folders.count};
        TRY(disk_image_open_named(&name, &comparison->disks[i]));
        comparison->chunks[i] = malloc(CHUNK_BYTES);
        if (comparison->chunks[i] == NULL)
            return err_new(ERR_NO_MEMORY, "compare");
    }
    if (settings.strict &&
        comparison->disks[0]->virtual_bytes != comparison->disks[1]->virtual_bytes)
        return err_new(ERR_STATE, "the images have %llu and %llu bytes",
                       (unsigned long long)comparison->disks[0]->virtual_bytes,
                       (unsigned long long)comparison->disks[1]->virtual_bytes);
    return NULL;
}

/* Behind the end of the shorter one there must be zeros. */
static struct err *read_chunk(struct block *disk, uint8_t *chunk, uint64_t offset, uint64_t len)
{
    uint64_t behind = disk->virtual_bytes - MIN(offset, disk->virtual_bytes);
    uint64_t inside = MIN(len, behind);
    struct iovec iov = {chunk, (size_t)inside};

    memset(chunk + inside, 0, len - inside);
    return inside == 0 ? NULL : block_read(disk, &iov, 1, offset);
}

/* The first offset that differs, or the end. */
static struct err *find_difference(const struct comparison *comparison,
                                   struct disk_progress *progress, uint64_t *out_offset)
{
    uint64_t end = progress->total_bytes;

    for (uint64_t at = 0; at < end; at += CHUNK_BYTES) {
        uint64_t len = MIN(CHUNK_BYTES, end - at);
        TRY(disk_progress_at(progress, at));
        for (size_t i = 0; i < 2; i++)
            TRY(read_chunk(comparison->disks[i], comparison->chunks[i], at, len));
        if (memcmp(comparison->chunks[0], comparison->chunks[1], len) == 0)
            continue;
        uint64_t in_chunk = 0;
        while (comparison->chunks[0][in_chunk] == comparison->chunks[1][in_chunk])
            in_chunk++;
        *out_offset = at + in_chunk;
        return NULL;
    }
    *out_offset = end;
    return NULL;
}

static struct err *report(uint64_t offset, uint64_t end)
{
    bool is_equal = offset == end;

    if (settings.json)
        program_json_print(
            is_equal ? json_pack("{s:b, s:I}", "equal", 1, "bytes", (json_int_t)end)
                     : json_pack("{s:b, s:I}", "equal", 0, "first_difference", (json_int_t)offset));
    else if (is_equal)
        (void)printf("the images are equal\n");
    return is_equal ? NULL
                    : err_new(ERR_INVALID, "the images differ, first at offset %llu",
                              (unsigned long long)offset);
}

static struct err *run(const struct option_result *operands)
{
    struct comparison comparison = {.disks = {NULL, NULL}};
    struct disk_progress progress;
    uint64_t offset = 0;

    struct err *err = open_both(operands, &comparison);
    if (err == NULL) {
        uint64_t end = MAX(comparison.disks[0]->virtual_bytes, comparison.disks[1]->virtual_bytes);
        disk_progress_begin(&progress, "compare", end, settings.json);
        err = find_difference(&comparison, &progress, &offset);
        (void)disk_progress_end(&progress);
        if (err == NULL)
            err = report(offset, end);
    }
    finish(&comparison);
    return err;
}

const struct program_verb compare_command = {"compare", &table, &settings, run};
