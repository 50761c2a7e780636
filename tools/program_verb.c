/* SPDX-License-Identifier: Apache-2.0 */
/*
 * program_verb.c - see program_verb.h. Tested by: tests/disk
 */
#include "tools/program_verb.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/program.h"

static void print_text(const struct program_verbs *verbs)
{
    (void)printf("usage: %s COMMAND [options] ...\n\n%s\n\ncommands:\n", verbs->program,
                 verbs->summary);
    for (size_t i = 0; i < verbs->count; i++)
        (void)printf("  %-12s %s\n", verbs->list[i].name, verbs->list[i].table->summary);
    (void)printf("\n'%s COMMAND --help' prints the options of a command.\n", verbs->program);
}

static void print_mdoc(const struct program_verbs *verbs)
{
    (void)printf(".Sh COMMANDS\n");
    for (size_t i = 0; i < verbs->count; i++) {
        const struct option_table *table = verbs->list[i].table;
        (void)printf(".Ss %s %s\n%s\n", verbs->list[i].name, table->arguments, table->summary);
        option_table_print_help(table, OPTION_HELP_MDOC_LIST, stdout);
    }
}

/* The commands first, then the options of the one that was chosen. */
static void print_bash(const struct program_verbs *verbs)
{
    (void)printf("_%s() {\n    local words=\n    COMPREPLY=()\n"
                 "    if [ \"$COMP_CWORD\" -eq 1 ]; then words='",
                 verbs->program);
    for (size_t i = 0; i < verbs->count; i++)
        (void)printf("%s ", verbs->list[i].name);
    (void)printf("--help'\n    else case ${COMP_WORDS[1]} in\n");
    for (size_t i = 0; i < verbs->count; i++) {
        const struct option_table *table = verbs->list[i].table;
        (void)printf("    %s) words='", verbs->list[i].name);
        for (size_t row = 0; row < table->row_count; row++)
            (void)printf("--%s ", table->rows[row].name);
        (void)printf("--help' ;;\n");
    }
    (void)printf("    esac; case $2 in -*) ;; *) words= ;; esac; fi\n"
                 "    [ -z \"$words\" ] || COMPREPLY=($(compgen -W \"$words\" -- \"$2\"))\n}\n"
                 "complete -o default -F _%s %s\n",
                 verbs->program, verbs->program);
}

/* True: it was help that was wanted. */
static bool help(const struct program_verbs *verbs, const char *word)
{
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
        print_text(verbs);
    else if (strcmp(word, "--help=mdoc") == 0)
        print_mdoc(verbs);
    else if (strcmp(word, "--help=bash") == 0)
        print_bash(verbs);
    else
        return false;
    return true;
}

int program_verbs_main(const struct program_verbs *verbs, int argc, char **argv)
{
    struct option_result operands;

    if (argc >= 2 && help(verbs, argv[1]))
        return PROGRAM_DONE;
    for (size_t i = 0; argc >= 2 && i < verbs->count; i++) {
        const struct program_verb *verb = &verbs->list[i];
        if (strcmp(verb->name, argv[1]) != 0)
            continue;
        program_begin(verb->table, argc - 1, argv + 1, verb->settings, &operands);
        return program_end(program_check_output(verb->run(&operands)));
    }
    if (argc < 2)
        (void)fprintf(stderr, "%s: no command given; see %s --help\n", verbs->program,
                      verbs->program);
    else
        (void)fprintf(stderr, "%s: unknown command '%s'; see %s --help\n", verbs->program, argv[1],
                      verbs->program);
    return PROGRAM_USAGE;
}
