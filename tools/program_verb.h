/* SPDX-License-Identifier: Apache-2.0 */
/*
 * program_verb.h - programs with many commands of which each has options of its own, as
 * "vm-disk create --size 10G disk.qcow2" has.
 *
 * Thread: loop only.
 */
#ifndef TOOLS_PROGRAM_VERB_H
#define TOOLS_PROGRAM_VERB_H

#include <stddef.h>

#include "base/err.h"
#include "base/option_table.h"

struct program_verb {
    const char *name;
    /* Its `program` is "PROGRAM NAME", as it heads the usage line. */
    const struct option_table *table;
    void *settings;
    struct err *(*run)(const struct option_result *operands);
};

struct program_verbs {
    const char *program;
    const char *summary; /* one sentence */
    const struct program_verb *list;
    size_t count;
};

/* What main returns. Prints help and ends the process as program_begin does. */
int program_verbs_main(const struct program_verbs *verbs, int argc, char **argv);

#endif
