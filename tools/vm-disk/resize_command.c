/* SPDX-License-Identifier: Apache-2.0 */
/*
 * resize_command.c - see resize_command.h. Tested by: tests/disk
 */
#include "tools/vm-disk/resize_command.h"

#include <stdio.h>

#include "base/checked_math.h"
#include "storage/image_layer.h"
#include "tools/program.h"
#include "tools/program_json.h"
#include "tools/program_size.h"
#include "tools/program_units.h"
#include "tools/vm-disk/disk_source.h"

static struct {
    struct disk_source source;
    bool may_shrink;
    bool json;
} settings;

#define SETTINGS __typeof__(settings)

static const struct option_row rows[] = {
    OPTION_TEXT("format", 'f', SETTINGS, source.format, "FORMAT", "qcow2",
                "of the image, qcow2 or raw"),
    OPTION_LIST("image-folder", 0, SETTINGS, source.folders, "FOLDER",
                "backing images may lie here, too; may be repeated"),
    OPTION_FLAG("shrink", 0, SETTINGS, may_shrink, "allow a smaller size; what is cut off is lost"),
    OPTION_FLAG("json", 0, SETTINGS, json, "print JSON"),
};

static const struct option_table table = {
    .program = "vm-disk resize",
    .arguments = "IMAGE [+]SIZE",
    .summary = "Makes a disk larger, or with --shrink smaller; the guest has to follow.",
    .rows = rows,
    .row_count = ARRAY_COUNT(rows),
    .operands_min = 2,
    .operands_max = 2,
};

/* What was said, a size or by how much it is to grow, of a disk that has this size now. */
static struct err *wanted_size(uint64_t bytes, bool is_more, uint64_t now, uint64_t *out_bytes)
{
    if (is_more && !checked_add(now, bytes, &bytes))
        return err_new(ERR_INVALID, "a disk can not be that large");
    if (bytes < now && !settings.may_shrink)
        return err_new(ERR_STATE,
                       "the disk has %llu bytes; making it smaller loses what is behind the new "
                       "end, so it needs --shrink",
                       (unsigned long long)now);
    *out_bytes = bytes;
    return NULL;
}

static struct err *run(const struct option_result *operands)
{
    const char *path = operands->operands[0];
    struct image_chain chain = {.stack = NULL};
    const char *text = operands->operands[1];
    bool is_more = text[0] == '+';
    uint64_t bytes = 0;

    program_check_usage(program_size_parse("size", text + (is_more ? 1 : 0), &bytes));
    TRY(disk_source_open(&settings.source, path, DISK_IMAGE_WRITABLE, &chain));
    struct err *err = wanted_size(bytes, is_more, chain.top.block->virtual_bytes, &bytes);
    if (err == NULL)
        err = image_layer_resize(&chain.top, bytes);
    struct err *close_err = block_close(chain.top.block);
    if (err != NULL) {
        err_free(close_err);
        return err;
    }
    TRY(close_err);
    if (settings.json)
        program_json_print(json_pack("{s:o, s:I}", "image", program_json_text(path),
                                     "virtual_bytes", (json_int_t)bytes));
    else
        (void)printf("%s: %s\n", path, readable_bytes(bytes).text);
    return NULL;
}

const struct program_verb resize_command = {"resize", &table, &settings, run};
