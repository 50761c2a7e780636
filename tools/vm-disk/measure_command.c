/* SPDX-License-Identifier: Apache-2.0 */
/*
 * measure_command.c - see measure_command.h. Tested by: tests/disk
 */
#include "tools/vm-disk/measure_command.h"

#include <stdio.h>

#include "base/checked_math.h"
#include "base/cleanup.h"
#include "storage/image_map.h"
#include "storage/qcow/qcow_layout.h"
#include "tools/program.h"
#include "tools/program_json.h"
#include "tools/program_size.h"
#include "tools/program_units.h"
#include "tools/vm-disk/disk_source.h"
#include "tools/vm-disk/image_file.h"
#include "tools/vm-disk/image_options.h"

#define SECTOR_BYTES ((uint64_t)512)

static struct {
    struct disk_source source;
    const char *output_format;
    const char *size;
    struct image_options options;
    bool json;
} settings;

#define SETTINGS __typeof__(settings)

static const struct option_row rows[] = {
    DISK_SOURCE_ROWS(SETTINGS, source),
    OPTION_TEXT("output-format", 'O', SETTINGS, output_format, "FORMAT", "qcow2",
                "of the image to be made: qcow2 or raw"),
    OPTION_TEXT("size", 0, SETTINGS, size, "SIZE", NULL,
                "measure an empty disk of this size instead of an image"),
    IMAGE_OPTION_ROWS(SETTINGS, options),
    OPTION_FLAG("json", 0, SETTINGS, json, "print JSON"),
};

static const struct option_table table = {
    .program = "vm-disk measure",
    .arguments = "[IMAGE]",
    .summary = "Says how large a file a new image of the same content needs at most.",
    .rows = rows,
    .row_count = ARRAY_COUNT(rows),
    .operands_min = 0,
    .operands_max = 1,
};

struct content {
    uint64_t virtual_bytes;
    uint64_t data_bytes; /* in units that are not zeros as a whole */
};

/* Units of which a part may hold data. */
static struct err *count_data(const struct image_chain *chain, uint64_t unit_bytes,
                              struct content *out_content)
{
    uint64_t end = chain->top.block->virtual_bytes, counted_to = 0;
    struct content content = {.virtual_bytes = end};

    for (uint64_t at = 0; at < end;) {
        struct image_extent extent;
        TRY(image_chain_map(chain, at, end - at, &extent));
        uint64_t to = align_up(at + extent.bytes, unit_bytes);
        uint64_t from = MAX(align_down(at, unit_bytes), counted_to);
        at += extent.bytes;
        if (extent.kind != IMAGE_EXTENT_DATA || to <= from)
            continue;
        content.data_bytes += to - from;
        counted_to = to;
    }
    *out_content = content;
    return NULL;
}

static struct err *look_at_source(const struct option_result *operands, uint64_t unit_bytes,
                                  struct content *out_content)
{
    CLEANUP(disk_chain_close) struct image_chain chain = {.stack = NULL};

    if ((operands->operand_count == 0) == (settings.size == NULL))
        program_check_usage(err_new(ERR_INVALID, "name either an image or a --size"));
    if (operands->operand_count == 0) {
        uint64_t bytes = 0;
        program_check_usage(program_size_parse("size", settings.size, &bytes));
        *out_content = (struct content){.virtual_bytes = align_up(bytes, SECTOR_BYTES)};
        return NULL;
    }
    TRY(disk_source_open(&settings.source, operands->operands[0], DISK_IMAGE_READ_ONLY, &chain));
    return count_data(&chain, unit_bytes, out_content);
}

/* Every table is counted in full. */
static struct err *measure_qcow(const struct qcow_create_options *options,
                                const struct content *content, uint64_t *out_needed,
                                uint64_t *out_full)
{
    struct qcow_layout layout;
    struct qcow_geometry geometry = {
        .virtual_bytes = content->virtual_bytes,
        .cluster_bits = options->cluster_bits,
        .refcount_order = (unsigned)__builtin_ctz(options->refcount_bits),
        .has_extended_l2 = options->has_extended_l2,
    };

    if (!qcow_layout_of(&geometry, QCOW_REACH_DATA, &layout))
        return err_new(ERR_INVALID,
                       "a disk of %llu bytes is not possible with clusters of %u bytes; take "
                       "larger ones",
                       (unsigned long long)content->virtual_bytes, 1u << options->cluster_bits);
    *out_full = qcow_layout_end(&layout) << options->cluster_bits;
    *out_needed = (qcow_layout_data(&layout) << options->cluster_bits) + content->data_bytes;
    return NULL;
}

static struct err *run(const struct option_result *operands)
{
    struct qcow_create_options options = {.virtual_bytes = 0};
    struct content content;
    bool is_qcow = false;

    program_check_usage(image_format_check(settings.output_format, &is_qcow));
    program_check_usage(image_options_read(&settings.options, &options));
    TRY(look_at_source(operands, is_qcow ? (uint64_t)1 << options.cluster_bits : SECTOR_BYTES,
                       &content));
    uint64_t needed = content.data_bytes, full = content.virtual_bytes;
    if (is_qcow)
        TRY(measure_qcow(&options, &content, &needed, &full));
    if (options.preallocation >= QCOW_PREALLOCATION_FALLOC)
        needed = full; /* whatever the content is */
    if (settings.json) {
        program_json_print(json_pack("{s:I, s:I}", "required_bytes", (json_int_t)needed,
                                     "full_bytes", (json_int_t)full));
        return NULL;
    }
    (void)printf("required when converted  %s (%llu bytes)\nwhen it is full          %s (%llu "
                 "bytes)\n",
                 readable_bytes(needed).text, (unsigned long long)needed, readable_bytes(full).text,
                 (unsigned long long)full);
    return NULL;
}

const struct program_verb measure_command = {"measure", &table, &settings, run};
