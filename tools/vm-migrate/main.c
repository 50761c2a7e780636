/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c - vm-migrate: moves a running machine to another host. Tested by: tests/system.
 */
#include "base/checked_math.h"
#include "base/limits.h"
#include "base/thread.h"
#include "tools/program.h"
#include "tools/vm-migrate/migrate_command.h"

static const struct option_row rows[] = {
    OPTION_NUMBER("channels", 'c', struct migrate_options, channels, "COUNT", 1,
                  MIGRATION_CHANNELS_MAX, 2, "connections that carry memory"),
    OPTION_NUMBER("downtime", 'd', struct migrate_options, downtime_ms, "MS", 1, 60000, 300,
                  "longest blackout; when it can not be kept, the machine stays here"),
    OPTION_NUMBER("max-rounds", 0, struct migrate_options, rounds_max, "COUNT", 1, 1000, 30,
                  "rounds of copying after which the machine stays here"),
    OPTION_NUMBER("bandwidth", 'b', struct migrate_options, mib_per_second, "MIB", 0, 1 << 20, 0,
                  "use at most so many MiB/s; 0: all there is"),
    OPTION_TEXT("certs", 0, struct migrate_options, certs, "FOLDER", NULL,
                "where ca.pem, host.pem and host-key.pem are; without it, in the configuration"),
    OPTION_FLAG("json", 'j', struct migrate_options, json, "print each event as a line of JSON"),
    OPTION_FLAG("cancel", 0, struct migrate_options, cancel,
                "stop the move of NAME that is under way; it runs on here"),
    OPTION_FLAG("settle", 0, struct migrate_options, settle,
                "ask the other host what became of NAME, which was handed over, and finish"),
};

static const struct option_table table = {
    .program = "vm-migrate",
    .arguments = "NAME [HOST[:PORT]]",
    .summary = "Moves a running machine to another host, where 'vm-receive' runs.",
    .rows = rows,
    .row_count = ARRAY_COUNT(rows),
    .operands_min = 1,
    .operands_max = 2,
};

int main(int argc, char **argv)
{
    struct migrate_options options;
    struct option_result operands;

    thread_become(ROLE_LOOP);
    program_begin(&table, argc, argv, &options, &operands);
    return program_end(migrate_command_run(
        &options, operands.operands[0], operands.operand_count > 1 ? operands.operands[1] : NULL));
}
