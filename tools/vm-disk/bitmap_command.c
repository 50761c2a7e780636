/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bitmap_command.c - see bitmap_command.h. Tested by: tests/disk
 */
#include "tools/vm-disk/bitmap_command.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/checked_math.h"
#include "storage/host_file.h"
#include "storage/qcow/qcow_bitmap.h"
#include "tools/program.h"
#include "tools/program_json.h"
#include "tools/program_size.h"
#include "tools/program_units.h"
#include "tools/vm-disk/locked_file.h"

static struct {
    bool add;
    bool remove;
    bool clear;
    bool enable;
    bool disable;
    const char *merge;
    const char *granularity;
    bool json;
} settings;

#define SETTINGS __typeof__(settings)

static const struct option_row rows[] = {
    OPTION_FLAG("add", 0, SETTINGS, add, "make one that is kept up from now on"),
    OPTION_FLAG("remove", 0, SETTINGS, remove, "remove one"),
    OPTION_FLAG("clear", 0, SETTINGS, clear, "forget what it says"),
    OPTION_FLAG("enable", 0, SETTINGS, enable, "keep it up again"),
    OPTION_FLAG("disable", 0, SETTINGS, disable, "leave it as it is from now on"),
    OPTION_TEXT("merge", 0, SETTINGS, merge, "SOURCE", NULL, "add what the bitmap SOURCE says"),
    OPTION_TEXT("granularity", 'g', SETTINGS, granularity, "SIZE", NULL,
                "to --add: what one bit stands for, 512 to 2G; 64k unless it is said"),
    OPTION_FLAG("json", 0, SETTINGS, json, "print JSON"),
};

static const struct option_table table = {
    .program = "vm-disk bitmap",
    .arguments = "IMAGE [NAME]",
    .summary = "Works with the bitmaps of a qcow2 image, which say what was written since.",
    .rows = rows,
    .row_count = ARRAY_COUNT(rows),
    .operands_min = 1,
    .operands_max = 2,
};

static uint64_t dirty_bytes(const struct qcow_bitmap *bitmap)
{
    return qcow_bitmap_dirty_bits(bitmap) << bitmap->granularity_bits;
}

static void print_json(const char *path, const struct qcow_bitmap_set *set)
{
    json_t *list = json_array();

    for (uint32_t i = 0; i < set->count; i++) {
        const struct qcow_bitmap *bitmap = &set->list[i];
        json_array_append_new(
            list, json_pack("{s:o, s:I, s:b, s:b, s:I}", "name", program_json_text(bitmap->name),
                            "granularity", (json_int_t)1 << bitmap->granularity_bits, "enabled",
                            (bitmap->flags & QCOW_BITMAP_AUTO) != 0, "consistent",
                            bitmap->bits != NULL, "dirty_bytes", (json_int_t)dirty_bytes(bitmap)));
    }
    program_json_print(json_pack("{s:o, s:o}", "image", program_json_text(path), "bitmaps", list));
}

static void print_text(const struct qcow_bitmap_set *set)
{
    for (uint32_t i = 0; i < set->count; i++) {
        const struct qcow_bitmap *bitmap = &set->list[i];
        (void)printf("%10s a bit  %10s dirty  %s%s  ",
                     readable_bytes((uint64_t)1 << bitmap->granularity_bits).text,
                     readable_bytes(dirty_bytes(bitmap)).text,
                     (bitmap->flags & QCOW_BITMAP_AUTO) != 0 ? "enabled" : "disabled",
                     bitmap->bits == NULL ? ", not to be relied on" : "");
        program_print_text(stdout, bitmap->name);
        (void)putchar('\n');
    }
}

static struct err *show(const char *path, struct host_file *file)
{
    struct qcow_bitmap_set set;

    TRY(qcow_bitmap_list(file, &set));
    if (settings.json)
        print_json(path, &set);
    else
        print_text(&set);
    qcow_bitmap_set_finish(&set);
    return NULL;
}

static struct err *read_granularity(unsigned *out_bits)
{
    uint64_t bytes = (uint64_t)1 << QCOW_BITMAP_GRANULARITY_DEFAULT;

    if (settings.granularity != NULL)
        TRY(program_size_parse("granularity", settings.granularity, &bytes));
    if (!is_power_of_two(bytes))
        return err_new(ERR_INVALID, "a granularity is a power of two");
    *out_bits = (unsigned)__builtin_ctzll(bytes);
    return NULL;
}

static int change_count(void)
{
    return settings.add + settings.remove + settings.clear + settings.enable + settings.disable +
           (settings.merge != NULL ? 1 : 0);
}

static struct err *check_options(const struct option_result *operands, unsigned *out_bits)
{
    bool is_change = change_count() > 0;

    if (change_count() > 1)
        return err_new(ERR_INVALID, "one change at a time");
    if (is_change != (operands->operand_count > 1))
        return err_new(ERR_INVALID, is_change ? "which bitmap? Its name comes after the image's"
                                              : "what is to be done with that bitmap?");
    return read_granularity(out_bits);
}

static struct err *change(struct host_file *file, const char *name, unsigned granularity_bits)
{
    if (settings.add)
        return qcow_bitmap_add(file, name, granularity_bits, true);
    if (settings.remove)
        return qcow_bitmap_remove(file, name);
    if (settings.clear)
        return qcow_bitmap_clear(file, name);
    if (settings.merge != NULL)
        return qcow_bitmap_merge(file, settings.merge, name);
    return qcow_bitmap_enable(file, name, settings.enable);
}

static struct err *run(const struct option_result *operands)
{
    const char *path = operands->operands[0];
    bool is_change = change_count() > 0;
    struct host_file *file = NULL;
    unsigned granularity_bits = 0;

    program_check_usage(check_options(operands, &granularity_bits));
    TRY(locked_file_open(path, is_change ? DISK_IMAGE_WRITABLE : DISK_IMAGE_READ_ONLY, &file));
    struct err *err = is_change ? change(file, operands->operands[1], granularity_bits) : NULL;
    if (err == NULL && (!is_change || settings.json))
        err = show(path, file);
    host_file_destroy(file);
    return err;
}

const struct program_verb bitmap_command = {"bitmap", &table, &settings, run};
