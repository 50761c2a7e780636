/* SPDX-License-Identifier: Apache-2.0 */
/*
 * program.c - see program.h.
 */
#include "tools/program.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"

static const char *program = "ferry";

enum program_exit program_exit_of(enum err_kind kind)
{
    switch (kind) {
    case ERR_NOT_FOUND: return PROGRAM_NOT_FOUND;
    case ERR_STATE:
    case ERR_INCOMPATIBLE: return PROGRAM_NOT_POSSIBLE;
    case ERR_DENIED: return PROGRAM_DENIED;
    case ERR_TIMEOUT: return PROGRAM_TIMEOUT;
    case ERR_CANCELLED: return PROGRAM_CANCELLED;
    case ERR_INVALID:
    case ERR_IO:
    case ERR_NO_MEMORY: break;
    }
    return PROGRAM_FAILED;
}

void program_print_text(FILE *out, const char *text)
{
    for (; *text != '\0'; text++)
        (void)fputc(iscntrl((unsigned char)*text) ? '?' : *text, out);
}

int program_end(struct err *err)
{
    if (err == NULL)
        return PROGRAM_DONE;
    bool is_denied = err_errnum(err) == EACCES || err_errnum(err) == EPERM;
    enum program_exit code = is_denied ? PROGRAM_DENIED : program_exit_of(err_kind(err));
    (void)fprintf(stderr, "%s: ", program);
    program_print_text(stderr, err_message(err));
    (void)fputc('\n', stderr);
    err_free(err);
    return (int)code;
}

struct err *program_check_output(struct err *err)
{
    if (err != NULL || (fflush(stdout) == 0 && ferror(stdout) == 0))
        return err;
    return err_new(ERR_IO, "not all of the output could be written");
}

void program_check_usage(struct err *err)
{
    if (err == NULL)
        return;
    (void)program_end(err);
    exit(PROGRAM_USAGE);
}

/* Or the next file that is opened gets the number, and what is printed lands in it. */
static void keep_standard_files(void)
{
    int fd;

    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        (void)close(fd);
}

void program_begin(const struct option_table *table, int argc, char **argv, void *settings,
                   struct option_result *out_result)
{
    keep_standard_files();
    program = table->program;
    log_set_program(program);
    /* A peer that hangs up is an error of the write, not the end of the process. */
    (void)signal(SIGPIPE, SIG_IGN);

    program_check_usage(option_table_parse(table, argc, argv, settings, out_result));
    if (out_result->help_wanted) {
        option_table_print_help(table, out_result->help, stdout);
        exit(PROGRAM_DONE);
    }
}
