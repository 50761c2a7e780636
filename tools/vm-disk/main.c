/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c - vm-disk: makes, looks at, checks and changes disk images. Tested by: tests/disk
 */
#include "base/checked_math.h"
#include "base/thread.h"
#include "tools/program_verb.h"
#include "tools/vm-disk/bench_command.h"
#include "tools/vm-disk/bitmap_command.h"
#include "tools/vm-disk/changes_command.h"
#include "tools/vm-disk/check_command.h"
#include "tools/vm-disk/compare_command.h"
#include "tools/vm-disk/convert_command.h"
#include "tools/vm-disk/create_command.h"
#include "tools/vm-disk/info_command.h"
#include "tools/vm-disk/layers_command.h"
#include "tools/vm-disk/map_command.h"
#include "tools/vm-disk/measure_command.h"
#include "tools/vm-disk/resize_command.h"
#include "tools/vm-disk/serve_command.h"
#include "tools/vm-disk/snapshot_command.h"

int main(int argc, char **argv)
{
    /* clang-format off */
    const struct program_verb list[] = {
        create_command,
        info_command,
        map_command,
        check_command,
        compare_command,
        measure_command,
        convert_command,
        changes_command,
        resize_command,
        snapshot_command,
        bitmap_command,
        serve_command,
        layers_command,
        bench_command,
    };
    /* clang-format on */
    const struct program_verbs verbs = {
        .program = "vm-disk",
        .summary = "Makes, looks at, checks and changes disk images.",
        .list = list,
        .count = ARRAY_COUNT(list),
    };

    thread_become(ROLE_LOOP);
    return program_verbs_main(&verbs, argc, argv);
}
