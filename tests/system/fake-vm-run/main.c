/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c - the machine without KVM as a process, in vm-run's place: whole programs are tested with
 * it where there is no KVM. Its console says what the payload guest's would.
 */
#include <inttypes.h>
#include <stdio.h>

#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"
#include "control/machine_fake.h"
#include "tools/program.h"

#define REPORT_MS 200

struct settings {
    bool incoming;
    uint64_t control_fd;
    uint64_t memory_mib, filled_mib, working_set_mib, rate;
    const char *name;
    const char *disk;
};

static const struct option_row rows[] = {
    OPTION_FLAG("incoming", 0, struct settings, incoming, "start empty"),
    OPTION_NUMBER("control-fd", 0, struct settings, control_fd, "FD", 0, 1000, 0,
                  "a connected control socket"),
    OPTION_TEXT("name", 'n', struct settings, name, "NAME", NULL, "name of the machine"),
    OPTION_NUMBER("memory", 'm', struct settings, memory_mib, "MIB", 1, 65536, 64, "memory"),
    OPTION_NUMBER("filled", 0, struct settings, filled_mib, "MIB", 0, 65536, 16,
                  "memory that has content from the start"),
    OPTION_NUMBER("ws", 0, struct settings, working_set_mib, "MIB", 0, 65536, 4,
                  "memory that is written again and again"),
    OPTION_NUMBER("rate", 0, struct settings, rate, "PAGES", 0, 1000000, 1000,
                  "pages written a second"),
    OPTION_TEXT("disk", 'd', struct settings, disk, "PATH", NULL, "a raw disk"),
};

static const struct option_table table = {
    .program = "fake-vm-run",
    .arguments = "",
    .summary = "Pretends to run a virtual machine.",
    .rows = rows,
    .row_count = ARRAY_COUNT(rows),
};

static struct err *start(const struct settings *settings, struct machine_fake **out_machine)
{
    struct machine_fake_config config = {
        .name = settings->name,
        .memory_mib = settings->memory_mib,
        .filled_pages = settings->filled_mib << 8,
        .working_set_pages = settings->working_set_mib << 8,
        .pages_per_second = settings->rate,
        .seed = clock_realtime_ns(),
        .disk_path = settings->disk,
    };
    return machine_fake_start(settings->incoming ? NULL : &config, out_machine);
}

static void report(struct machine_fake *machine)
{
    uint64_t steps = machine_fake_steps(machine);
    struct err *err = machine_fake_check(machine);
    bool is_bad = err != NULL && err_kind(err) == ERR_INVALID;
    char line[128];
    (void)snprintf(line, sizeof(line), "pattern ms=%" PRIu64 " pass=1 edge=%" PRIu64 " bad=%d\n",
                   clock_monotonic_ns() / NS_PER_MS, steps, is_bad);
    machine_fake_say(machine, line);
    (void)fputs(line, stdout);
    (void)fflush(stdout);
    if (is_bad)
        log_err(LOG_ERROR, "memory is wrong", err);
    else
        err_free(err);
}

DEFINE_CLEANUP(machine, struct machine_fake, machine_fake_destroy)

static struct err *run(const struct settings *settings)
{
    CLEANUP(cleanup_machine) struct machine_fake *machine = NULL;
    TRY(start(settings, &machine));
    if (settings->control_fd != 0)
        TRY(machine_fake_adopt(machine, (int)settings->control_fd));
    while (!machine_fake_wait_end(machine, REPORT_MS))
        if (machine_fake_run_state(machine) == FERRY__CONTROL_RUN_STATE__RUN_STATE_RUNNING)
            report(machine);
    return NULL;
}

int main(int argc, char **argv)
{
    struct settings settings;
    struct option_result operands;

    program_begin(&table, argc, argv, &settings, &operands);
    return program_end(run(&settings));
}
