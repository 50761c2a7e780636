/* SPDX-License-Identifier: Apache-2.0 */
/*
 * changes_command.c - see changes_command.h. Tested by: tests/system/disk_changes_test.py
 */
#include "tools/vm-disk/changes_command.h"

#include <stdio.h>

#include "base/checked_math.h"
#include "control/control_client.h"
#include "storage/dirty_blocks.h"
#include "tools/program.h"

static struct {
    bool begin;
    bool to_copy;
    bool done;
    bool json;
    const char *machine;
    const char *disk;
    const char *tracker;
} settings;

#define SETTINGS __typeof__(settings)

static const struct option_row rows[] = {
    OPTION_FLAG("begin", 0, SETTINGS, begin,
                "first let a copy begin: what changed until here is to be copied"),
    OPTION_TEXT("machine", 0, SETTINGS, machine, "NAME", NULL,
                "with --begin: the machine that runs on the disk"),
    OPTION_TEXT("disk", 0, SETTINGS, disk, "ID", NULL, "and which of its disks"),
    OPTION_TEXT("tracker", 0, SETTINGS, tracker, "NAME", NULL, "and which of its trackers"),
    OPTION_FLAG("to-copy", 0, SETTINGS, to_copy,
                "show what the copy still has to take, not what changed since it began"),
    OPTION_FLAG("done", 0, SETTINGS, done,
                "all that was to be copied is, and is durable where it was copied to"),
    OPTION_FLAG("json", 0, SETTINGS, json, "print JSON"),
};

static const struct option_table table = {
    .program = "vm-disk changes",
    .arguments = "FILE",
    .summary = "Shows which ranges of a disk changed since they were last copied.",
    .rows = rows,
    .row_count = ARRAY_COUNT(rows),
    .operands_min = 1,
    .operands_max = 1,
};

/* Whoever writes to the disk lets the copy begin. */
static struct err *begin(struct dirty_blocks *blocks)
{
    struct control_client *client = NULL;

    if (settings.machine == NULL)
        return dirty_blocks_begin(blocks);
    if (settings.disk == NULL || settings.tracker == NULL)
        program_check_usage(err_new(ERR_INVALID, "with --machine, say --disk and --tracker, too"));
    TRY(control_client_connect(settings.machine, "vm-disk", &client));
    struct err *err = control_begin_copy(client, settings.disk, settings.tracker);
    control_client_close(client);
    return err;
}

static void finish(struct dirty_blocks *blocks)
{
    struct dirty_range range;

    for (uint64_t at = 0; dirty_blocks_next(blocks, DIRTY_BLOCKS_TO_COPY, at, &range);
         at = range.offset + range.bytes)
        dirty_blocks_done(blocks, range);
}

/* Printed as it is found: there can be millions of ranges. */
static void print(struct dirty_blocks *blocks)
{
    enum dirty_blocks_kind kind = settings.to_copy ? DIRTY_BLOCKS_TO_COPY : DIRTY_BLOCKS_CHANGED;
    struct dirty_range range;

    if (settings.json)
        (void)printf("{\"size\": %llu, \"granularity\": %llu, \"ranges\": [",
                     (unsigned long long)dirty_blocks_virtual_bytes(blocks),
                     (unsigned long long)dirty_blocks_granularity(blocks));
    else
        (void)printf("%16s %16s\n", "offset", "bytes");
    for (uint64_t at = 0; dirty_blocks_next(blocks, kind, at, &range);
         at = range.offset + range.bytes) {
        unsigned long long offset = range.offset, bytes = range.bytes;
        if (settings.json)
            (void)printf("%s{\"start\": %llu, \"length\": %llu}", at == 0 ? "" : ", ", offset,
                         bytes);
        else
            (void)printf("%16llu %16llu\n", offset, bytes);
    }
    if (settings.json)
        (void)printf("]}\n");
}

static struct err *run(const struct option_result *operands)
{
    struct dirty_blocks *blocks = NULL;

    if (settings.begin && settings.done)
        program_check_usage(err_new(ERR_INVALID, "between --begin and --done is the copying: what "
                                                 "is done at once would never be copied"));
    TRY(dirty_blocks_attach(operands->operands[0], &blocks));
    struct err *err = settings.begin ? begin(blocks) : NULL;
    if (err == NULL && settings.done)
        finish(blocks);
    if (err == NULL)
        print(blocks);
    struct err *close_err = dirty_blocks_close(blocks);
    if (err == NULL)
        return close_err;
    err_free(close_err);
    return err;
}

const struct program_verb changes_command = {"changes", &table, &settings, run};
