/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compare_command.c - see compare_command.h. Tested by: tests/disk
 *
 * What both maps say is zeros is not read, so that large disks with little in them are quick.
 */
#include "tools/vm-disk/compare_command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/limits.h"
#include "storage/image_map.h"
#include "tools/program_json.h"
#include "tools/vm-disk/disk_progress.h"
#include "tools/vm-disk/disk_source.h"

#define CHUNK_BYTES ((size_t)MIB)

static struct {
    struct disk_source source;
    const char *other_format;
    bool strict;
    bool json;
} settings;

#define SETTINGS __typeof__(settings)

static const struct option_row rows[] = {
    DISK_SOURCE_ROWS(SETTINGS, source),
    OPTION_TEXT("other-format", 'F', SETTINGS, other_format, "FORMAT", "qcow2",
                "of the second image"),
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

/* One of the two; behind its end are zeros. */
struct side {
    struct image_chain chain;
    uint64_t bytes;
    uint8_t *data; /* owned */
    bool is_zero;  /* the current piece, without having read it */
};

static void side_finish(struct side *side)
{
    disk_chain_close(&side->chain);
    free(side->data);
}

static struct err *side_open(const struct disk_source *source, const char *path,
                             struct side *out_side)
{
    TRY(disk_source_open(source, path, DISK_IMAGE_READ_ONLY, &out_side->chain));
    out_side->bytes = out_side->chain.top.block->virtual_bytes;
    out_side->data = malloc(CHUNK_BYTES);
    return out_side->data == NULL ? err_new(ERR_NO_MEMORY, "compare '%s'", path) : NULL;
}

/* Is what begins at `offset` known to be zeros, and for how many bytes is the answer the same? */
static struct err *look(struct side *side, uint64_t offset, uint64_t len, uint64_t *out_bytes)
{
    struct image_extent extent = {.kind = IMAGE_EXTENT_NONE, .bytes = len};

    if (offset < side->bytes)
        TRY(image_chain_map(&side->chain, offset, MIN(len, side->bytes - offset), &extent));
    side->is_zero = extent.kind != IMAGE_EXTENT_DATA;
    *out_bytes = extent.bytes;
    return NULL;
}

static struct err *load(struct side *side, uint64_t offset, size_t len)
{
    struct iovec iov = {side->data, len};

    if (side->is_zero) {
        memset(side->data, 0, len);
        return NULL;
    }
    return block_read(side->chain.top.block, &iov, 1, offset);
}

/* The first difference of a piece, or its length. */
static struct err *compare_piece(struct side *sides, uint64_t offset, size_t len, size_t *out_at)
{
    size_t at = 0;

    TRY(load(&sides[0], offset, len));
    TRY(load(&sides[1], offset, len));
    if (memcmp(sides[0].data, sides[1].data, len) == 0)
        at = len;
    while (at < len && sides[0].data[at] == sides[1].data[at])
        at++;
    *out_at = at;
    return NULL;
}

/* The offset of the first difference, or where the larger one ends. */
static struct err *compare(struct side *sides, struct disk_progress *progress, uint64_t *out_at)
{
    uint64_t end = MAX(sides[0].bytes, sides[1].bytes), at = 0;

    while (at < end) {
        uint64_t bytes[2];
        TRY(disk_progress_at(progress, at));
        for (unsigned i = 0; i < 2; i++)
            TRY(look(&sides[i], at, end - at, &bytes[i]));
        uint64_t piece = MIN(bytes[0], bytes[1]);
        if (!sides[0].is_zero || !sides[1].is_zero) {
            size_t same;
            piece = MIN(piece, (uint64_t)CHUNK_BYTES);
            TRY(compare_piece(sides, at, (size_t)piece, &same));
            if (same < piece) {
                *out_at = at + same;
                return NULL;
            }
        }
        at += piece;
    }
    *out_at = end;
    return NULL;
}

static struct err *check_sizes(const struct side *first, const struct side *second)
{
    if (!settings.strict || first->bytes == second->bytes)
        return NULL;
    return err_new(ERR_STATE, "the images have %llu and %llu bytes",
                   (unsigned long long)first->bytes, (unsigned long long)second->bytes);
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
    CLEANUP(side_finish) struct side first = {.data = NULL};
    CLEANUP(side_finish) struct side second = {.data = NULL};
    struct disk_source other = settings.source;
    struct disk_progress progress;
    uint64_t at = 0;

    other.format = settings.other_format;
    other.snapshot = NULL;
    TRY(side_open(&settings.source, operands->operands[0], &first));
    TRY(side_open(&other, operands->operands[1], &second));
    TRY(check_sizes(&first, &second));

    struct side sides[2] = {first, second};
    uint64_t end = MAX(first.bytes, second.bytes);
    disk_progress_begin(&progress, "compare", end, settings.json);
    struct err *err = compare(sides, &progress, &at);
    (void)disk_progress_end(&progress);
    return err == NULL ? report(at, end) : err;
}

const struct program_verb compare_command = {"compare", &table, &settings, run};
