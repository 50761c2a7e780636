/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c - vm-ctl: what runs on this host, and the buttons of each machine.
 * Tested by: vm_ctl_test.c
 */
#include "base/checked_math.h"
#include "base/thread.h"
#include "tools/program.h"
#include "tools/program_command.h"
#include "tools/vm-ctl/vm_ctl.h"

static const struct option_row rows[] = {
    OPTION_FLAG("json", 'j', struct vm_ctl_settings, json,
                "print JSON (list, status, resize-disk)"),
    OPTION_FLAG("force", 'f', struct vm_ctl_settings, force,
                "power-off: end the machine at once, without asking its guest"),
    OPTION_NUMBER("wait", 'w', struct vm_ctl_settings, wait_s, "SECONDS", 0, 86400, 0,
                  "power-off, quit: wait until the machine's process has gone"),
};

static const struct option_table table = {
    .program = "vm-ctl",
    .arguments = "COMMAND [NAME [ARGUMENT...]]",
    .summary = "Shows and controls the machines of this user on this host.\n"
               "\n"
               "commands:\n"
               "  list             all machines\n"
               "  status NAME      one machine in detail\n"
               "  pause NAME       stop the guest where it is\n"
               "  resume NAME      let a paused guest go on\n"
               "  power-off NAME   press the guest's power button\n"
               "  reset NAME       reset the guest as its reset button would\n"
               "  console NAME     connect this terminal to the serial console\n"
               "  resize-disk NAME DISK [+]SIZE\n"
               "                   make a disk larger while the guest runs\n"
               "  limit-disk NAME DISK iops=N,bps=BYTES\n"
               "                   let the guest have so much of a disk; 0 lifts a limit\n"
               "  quit NAME        end the machine's process",
    .rows = rows,
    .row_count = ARRAY_COUNT(rows),
    .operands_min = 1,
    .operands_max = 4,
};

static const struct program_command commands[] = {
    {"list", "", 0, 0, vm_ctl_list},
    {"status", "NAME", 1, 1, vm_ctl_status},
    {"pause", "NAME", 1, 1, vm_ctl_pause},
    {"resume", "NAME", 1, 1, vm_ctl_resume},
    {"power-off", "NAME", 1, 1, vm_ctl_power_off},
    {"reset", "NAME", 1, 1, vm_ctl_reset},
    {"console", "NAME", 1, 1, vm_ctl_console},
    {"resize-disk", "NAME DISK [+]SIZE", 3, 3, vm_ctl_resize_disk},
    {"limit-disk", "NAME DISK iops=N,bps=BYTES", 3, 3, vm_ctl_limit_disk},
    {"quit", "NAME", 1, 1, vm_ctl_quit},
};

int main(int argc, char **argv)
{
    struct option_result operands;

    thread_become(ROLE_LOOP);
    program_begin(&table, argc, argv, &vm_ctl_settings, &operands);
    return program_end(program_command_run(&table, commands, ARRAY_COUNT(commands), &operands));
}
