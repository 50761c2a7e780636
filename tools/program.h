/* SPDX-License-Identifier: Apache-2.0 */
/*
 * program.h - how every program of Ferry begins and ends.
 *
 *     int main(int argc, char **argv)
 *     {
 *         struct settings settings;
 *         struct option_result operands;
 *
 *         program_begin(&table, argc, argv, &settings, &operands);
 *         return program_end(run(&settings, &operands));
 *     }
 *
 * Thread: loop only.
 */
#ifndef TOOLS_PROGRAM_H
#define TOOLS_PROGRAM_H

#include <stdio.h>

#include "base/err.h"
#include "base/option_table.h"

/* As in the EXIT STATUS section of every man page. */
enum program_exit {
    PROGRAM_DONE = 0,
    PROGRAM_FAILED = 1,       /* the host refused, or something is damaged */
    PROGRAM_USAGE = 2,        /* the command line is wrong */
    PROGRAM_NOT_FOUND = 3,    /* no machine, snapshot, disk or host of that name */
    PROGRAM_NOT_POSSIBLE = 4, /* not in this state, or this host or version can not */
    PROGRAM_DENIED = 5,       /* a certificate, lock or permission */
    PROGRAM_TIMEOUT = 6,      /* nobody answered in time */
    PROGRAM_CANCELLED = 130,  /* by Ctrl-C or on request: as shells say it */
};

/* Opens standard files that are closed, names the program for the log, ignores SIGPIPE, parses the
 * options. On --help and on a wrong command line it prints what to know and ends the process. */
void program_begin(const struct option_table *table, int argc, char **argv, void *settings,
                   struct option_result *out_result);

/* For what the option table can not check: prints the error, if there is one, and ends the process
 * with PROGRAM_USAGE. */
void program_check_usage(struct err *err);

/* For programs whose output is what they are run for: the error, or else that some of what was
 * printed did not arrive. */
ERR_RESULT program_check_output(struct err *err);

/* Of an image or a peer, who may have put anything into it, such as what moves a terminal's cursor.
 */
void program_print_text(FILE *out, const char *text);

/* Prints the error, if there is one, as "PROGRAM: message" on stderr, frees it, and returns what
 * main returns. */
int program_end(struct err *err);

enum program_exit program_exit_of(enum err_kind kind);

#endif
