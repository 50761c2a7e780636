/* SPDX-License-Identifier: Apache-2.0 */
/*
 * map_command.c - see map_command.h. Tested by: tests/disk
 *
 * Keys of the JSON are those of 'qemu-img map --output=json'.
 */
#include "tools/vm-disk/map_command.h"

#include <stdio.h>

#include "base/checked_math.h"
#include "base/cleanup.h"
#include "storage/image_map.h"
#include "tools/program_json.h"
#include "tools/vm-disk/disk_source.h"

static struct {
    struct disk_source source;
    bool json;
} settings;

#define SETTINGS __typeof__(settings)

static const struct option_row rows[] = {
    DISK_SOURCE_ROWS(SETTINGS, source),
    OPTION_FLAG("json", 0, SETTINGS, json,
                "print JSON, one object a line, with the keys of qemu-img"),
};

static const struct option_table table = {
    .program = "vm-disk map",
    .arguments = "IMAGE",
    .summary = "Shows which layer holds each range of the disk, and where in its file.",
    .rows = rows,
    .row_count = ARRAY_COUNT(rows),
    .operands_min = 1,
    .operands_max = 1,
};

static const char *kind_name(const struct image_extent *extent)
{
    switch (extent->kind) {
    case IMAGE_EXTENT_NONE: return "none";
    case IMAGE_EXTENT_ZERO: return "zero";
    case IMAGE_EXTENT_DATA: break;
    }
    return extent->is_compressed ? "compressed" : "data";
}

static void print_text(uint64_t offset, const struct image_extent *extent)
{
    (void)printf("%16llu %16llu %5u  %-10s", (unsigned long long)offset,
                 (unsigned long long)extent->bytes, extent->depth, kind_name(extent));
    if (extent->has_offset)
        (void)printf(" %16llu", (unsigned long long)extent->host_offset);
    (void)putchar('\n');
}

/* Printed as it is found: a map can have millions of rows. */
static void print_json(uint64_t offset, const struct image_extent *extent)
{
    (void)printf("%s{\"start\": %llu, \"length\": %llu, \"depth\": %u, \"present\": %s, "
                 "\"zero\": %s, \"data\": %s, \"compressed\": %s",
                 offset == 0 ? "[" : ",\n", (unsigned long long)offset,
                 (unsigned long long)extent->bytes, extent->depth,
                 extent->kind == IMAGE_EXTENT_NONE ? "false" : "true",
                 extent->kind == IMAGE_EXTENT_DATA ? "false" : "true",
                 extent->kind == IMAGE_EXTENT_DATA ? "true" : "false",
                 extent->is_compressed ? "true" : "false");
    if (extent->has_offset)
        (void)printf(", \"offset\": %llu", (unsigned long long)extent->host_offset);
    (void)printf("}");
}

/* Does `next` go on where `extent` ends? */
static bool continues(const struct image_extent *extent, const struct image_extent *next)
{
    return next->kind == extent->kind && next->depth == extent->depth &&
           next->is_compressed == extent->is_compressed && next->has_offset == extent->has_offset &&
           (!next->has_offset || next->host_offset == extent->host_offset + extent->bytes);
}

static struct err *print_map(const struct image_chain *chain)
{
    void (*print)(uint64_t, const struct image_extent *) = settings.json ? print_json : print_text;
    struct image_extent extent = {.bytes = 0};
    uint64_t start = 0, end = chain->top.block->virtual_bytes;

    for (uint64_t at = 0; at < end;) {
        struct image_extent next;
        TRY(image_chain_map(chain, at, end - at, &next));
        at += next.bytes;
        if (extent.bytes > 0 && continues(&extent, &next)) {
            extent.bytes += next.bytes;
            continue;
        }
        if (extent.bytes > 0)
            print(start, &extent);
        start += extent.bytes;
        extent = next;
    }
    if (extent.bytes > 0)
        print(start, &extent);
    return NULL;
}

static struct err *run(const struct option_result *operands)
{
    CLEANUP(disk_chain_close) struct image_chain chain = {.stack = NULL};

    TRY(disk_source_open(&settings.source, operands->operands[0], DISK_IMAGE_READ_ONLY, &chain));
    if (!settings.json)
        (void)printf("%16s %16s %5s  %-10s %16s\n", "offset", "bytes", "depth", "holds", "at");
    TRY(print_map(&chain));
    if (settings.json)
        (void)printf("%s]\n", chain.top.block->virtual_bytes == 0 ? "[" : "");
    return NULL;
}

const struct program_verb map_command = {"map", &table, &settings, run};
