/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c - vm-run: runs one machine. Tested by: tests/system.
 */
#include <malloc.h>

#include "tools/program.h"
#include "tools/vm-run/run_machine.h"
#include "tools/vm-run/run_options.h"

int main(int argc, char **argv)
{
    struct run_options options;
    struct option_result operands;

    /* One heap for all threads: they allocate little, and each arena of its own would cost. */
    (void)mallopt(M_ARENA_MAX, 1);
    program_begin(&run_option_table, argc, argv, &options, &operands);
    return program_end(run_machine(&options));
}
