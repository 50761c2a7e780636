/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c - vm-run: runs one machine. Tested by: tests/system.
 */
#include <fcntl.h>
#include <malloc.h>
#include <unistd.h>

#include "tools/program.h"
#include "tools/vm-run/run_machine.h"
#include "tools/vm-run/run_options.h"

/* The kernel's table of descriptors grows while there is one thread: later, when those of a
 * snapshot arrive, each growth waits until all threads have passed it, some ten milliseconds. */
static void make_room_for_files(void)
{
    int fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 1000);

    if (fd >= 0)
        (void)close(fd);
}

int main(int argc, char **argv)
{
    struct run_options options;
    struct option_result operands;

    /* One heap for all threads: they allocate little, and each arena of its own would cost. */
    (void)mallopt(M_ARENA_MAX, 1);
    make_room_for_files();
    program_begin(&run_option_table, argc, argv, &options, &operands);
    return program_end(run_machine(&options));
}
