/* SPDX-License-Identifier: Apache-2.0 */
/*
 * option_table.h - one table of options gives the parser, --help, the validation of the same
 * settings from elsewhere, and the man page's OPTIONS.
 *
 *     static const struct option_row rows[] = {
 *         OPTION_NUMBER("memory", 'm', struct settings, memory_mib, "MIB", 1, 4096, 128, "RAM"),
 *         OPTION_TEXT("name", 'n', struct settings, name, "NAME", NULL, "name of the machine"),
 *         OPTION_FLAG("json", 0, struct settings, json, "print JSON"),
 *         OPTION_LIST("disk", 'd', struct settings, disks, "SPEC", "a disk; may be repeated"),
 *     };
 *
 * Settings are a plain struct: uint64_t for numbers, const char * for texts, bool for flags,
 * struct option_list for lists. Texts point into argv or the defaults. Every table understands
 * `--help`, and, for the build, `--help=mdoc` and `--help=bash`. Thread: loop only.
 */
#ifndef BASE_OPTION_TABLE_H
#define BASE_OPTION_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"

#define OPTION_LIST_MAX 32u

enum option_type { OPTION_TYPE_NUMBER, OPTION_TYPE_TEXT, OPTION_TYPE_FLAG, OPTION_TYPE_LIST };

struct option_list {
    const char *values[OPTION_LIST_MAX];
    size_t count;
};

struct option_row {
    const char *name; /* without dashes */
    char letter;      /* 0: none */
    enum option_type type;
    size_t offset;    /* of the field in the settings */
    const char *unit; /* as in "--memory MIB"; NULL for flags */
    uint64_t min, max, number_default;
    const char *text_default;
    const char *help;
};

#define OPTION_NUMBER(name, letter, type, field, unit, min, max, value, help)                      \
    {name, letter, OPTION_TYPE_NUMBER, offsetof(type, field), unit, min, max, value, NULL, help}
#define OPTION_TEXT(name, letter, type, field, unit, value, help)                                  \
    {name, letter, OPTION_TYPE_TEXT, offsetof(type, field), unit, 0, 0, 0, value, help}
#define OPTION_FLAG(name, letter, type, field, help)                                               \
    {name, letter, OPTION_TYPE_FLAG, offsetof(type, field), NULL, 0, 0, 0, NULL, help}
#define OPTION_LIST(name, letter, type, field, unit, help)                                         \
    {name, letter, OPTION_TYPE_LIST, offsetof(type, field), unit, 0, 0, 0, NULL, help}

struct option_table {
    const char *program;
    const char *arguments; /* the operands in the usage line: "NAME HOST[:PORT]", or "" */
    const char *summary;   /* one sentence */
    const struct option_row *rows;
    size_t row_count;
    size_t operands_min, operands_max;
};

enum option_help {
    OPTION_HELP_TEXT,      /* for a terminal */
    OPTION_HELP_MDOC,      /* the man page's OPTIONS */
    OPTION_HELP_MDOC_LIST, /* the same without its heading, for a program with several tables */
    OPTION_HELP_BASH,      /* completion */
};

struct option_result {
    const char *operands[OPTION_LIST_MAX];
    size_t operand_count;
    bool help_wanted; /* then nothing else was checked: option_table_print_help, exit with 0 */
    enum option_help help;
};

/* Fills settings (zeroed or not) with defaults, then with argv[1..]. "--" ends the options. */
ERR_RESULT option_table_parse(const struct option_table *table, int argc, char **argv,
                              void *settings, struct option_result *out_result);
void option_table_print_help(const struct option_table *table, enum option_help help, FILE *out);

/* Splits "key=value,key=value" settings such as --disk's: rows are matched by name, settings filled
 * as above; a flag is its key alone. `copy` must live as long as the settings; it is modified.
 * `what` heads the errors. */
ERR_RESULT option_spec_parse(const char *what, const struct option_row *rows, size_t row_count,
                             char *copy, void *settings);

/* A whole number in decimal, checked against the row's bounds. */
ERR_RESULT option_number_parse(const char *what, const char *text, uint64_t min, uint64_t max,
                               uint64_t *out_value);

#endif
