/* SPDX-License-Identifier: Apache-2.0 */
/*
 * option_table.c - see option_table.h.
 */
#include "base/option_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/checked_math.h"

struct err *option_number_parse(const char *what, const char *text, uint64_t min, uint64_t max,
                                uint64_t *out_value)
{
    char *end = NULL;

    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0')
        return err_new(ERR_INVALID, "%s: '%s' is not a whole number", what, text);
    if (errno != 0 || value < min || value > max)
        return err_new(ERR_INVALID, "%s: %s is not in %llu..%llu", what, text,
                       (unsigned long long)min, (unsigned long long)max);
    *out_value = value;
    return NULL;
}

static void *field_of(const struct option_row *row, void *settings)
{
    return (char *)settings + row->offset;
}

static void set_default(const struct option_row *row, void *settings)
{
    void *field = field_of(row, settings);

    switch (row->type) {
    case OPTION_TYPE_NUMBER: *(uint64_t *)field = row->number_default; break;
    case OPTION_TYPE_TEXT: *(const char **)field = row->text_default; break;
    case OPTION_TYPE_FLAG: *(bool *)field = false; break;
    case OPTION_TYPE_LIST: ((struct option_list *)field)->count = 0; break;
    }
}

static struct err *set_value(const struct option_row *row, const char *what, const char *text,
                             void *settings)
{
    void *field = field_of(row, settings);

    if (row->type == OPTION_TYPE_NUMBER)
        return option_number_parse(what, text, row->min, row->max, field);
    if (row->type == OPTION_TYPE_TEXT) {
        *(const char **)field = text;
    } else if (row->type == OPTION_TYPE_FLAG) {
        *(bool *)field = true;
    } else {
        struct option_list *list = field;
        if (list->count == OPTION_LIST_MAX)
            return err_new(ERR_INVALID, "%s: given more than %u times", what, OPTION_LIST_MAX);
        list->values[list->count++] = text;
    }
    return NULL;
}

static const struct option_row *find_row(const struct option_row *rows, size_t row_count,
                                         const char *name, size_t len)
{
    for (size_t i = 0; i < row_count; i++)
        if (strlen(rows[i].name) == len && strncmp(rows[i].name, name, len) == 0)
            return &rows[i];
    return NULL;
}

static const struct option_row *find_letter(const struct option_table *table, char letter)
{
    for (size_t i = 0; i < table->row_count; i++)
        if (table->rows[i].letter == letter)
            return &table->rows[i];
    return NULL;
}

/* Takes "--name", "--name=value" or "-l" and the value after it. Returns through *at the index of
 * the last word used. */
static struct err *parse_option(const struct option_table *table, int argc, char **argv, int *at,
                                void *settings)
{
    const char *word = argv[*at];
    const char *value = NULL;
    const struct option_row *row = NULL;

    if (word[1] == '-') {
        size_t len = strcspn(word + 2, "=");
        value = word[2 + len] == '=' ? word + 2 + len + 1 : NULL;
        row = find_row(table->rows, table->row_count, word + 2, len);
    } else if (word[1] != '\0' && word[2] == '\0') {
        row = find_letter(table, word[1]);
    }
    if (row == NULL)
        return err_new(ERR_INVALID, "unknown option '%s'; see %s --help", word, table->program);

    char what[64];
    (void)snprintf(what, sizeof(what), "option --%s", row->name);
    if (row->type == OPTION_TYPE_FLAG) {
        if (value != NULL)
            return err_new(ERR_INVALID, "%s takes no value", what);
    } else if (value == NULL) {
        if (*at + 1 >= argc)
            return err_new(ERR_INVALID, "%s needs a value (%s)", what, row->unit);
        value = argv[++*at];
    }
    return set_value(row, what, value, settings);
}

static bool is_help(const char *word, struct option_result *out_result)
{
    static const struct {
        const char *word;
        enum option_help help;
    } words[] = {
        {"--help", OPTION_HELP_TEXT},
        {"-h", OPTION_HELP_TEXT},
        {"--help=mdoc", OPTION_HELP_MDOC},
        {"--help=bash", OPTION_HELP_BASH},
    };

    for (size_t i = 0; i < ARRAY_COUNT(words); i++) {
        if (strcmp(word, words[i].word) == 0) {
            *out_result = (struct option_result){.help_wanted = true, .help = words[i].help};
            return true;
        }
    }
    return false;
}

struct err *option_table_parse(const struct option_table *table, int argc, char **argv,
                               void *settings, struct option_result *out_result)
{
    struct option_result result = {0};
    bool options_ended = false;

    ASSERT(table->operands_max <= OPTION_LIST_MAX);
    for (size_t i = 0; i < table->row_count; i++)
        set_default(&table->rows[i], settings);
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        if (!options_ended && is_help(word, out_result))
            return NULL;
        if (!options_ended && strcmp(word, "--") == 0) {
            options_ended = true;
        } else if (!options_ended && word[0] == '-' && word[1] != '\0') {
            TRY(parse_option(table, argc, argv, &i, settings));
        } else {
            if (result.operand_count == table->operands_max)
                return err_new(ERR_INVALID, "unexpected argument '%s'; see %s --help", word,
                               table->program);
            result.operands[result.operand_count++] = word;
        }
    }
    if (result.operand_count < table->operands_min)
        return err_new(ERR_INVALID, "missing argument; usage: %s [options] %s", table->program,
                       table->arguments);
    *out_result = result;
    return NULL;
}

struct err *option_spec_parse(const char *what, const struct option_row *rows, size_t row_count,
                              char *copy, void *settings)
{
    char *rest = copy;

    for (size_t i = 0; i < row_count; i++)
        set_default(&rows[i], settings);
    while (rest != NULL) {
        char *item = strsep(&rest, ",");
        size_t len = strcspn(item, "=");
        const struct option_row *row = find_row(rows, row_count, item, len);
        if (row == NULL)
            return err_new(ERR_INVALID, "%s: unknown key '%.*s'", what, (int)len, item);
        if (row->type == OPTION_TYPE_FLAG && item[len] == '=')
            return err_new(ERR_INVALID, "%s: key '%s' takes no value", what, row->name);
        if (row->type != OPTION_TYPE_FLAG && item[len] != '=')
            return err_new(ERR_INVALID, "%s: key '%s' needs a value (%s=%s)", what, row->name,
                           row->name, row->unit);

        char key[96];
        (void)snprintf(key, sizeof(key), "%s: %s", what, row->name);
        TRY(set_value(row, key, item[len] == '=' ? item + len + 1 : "", settings));
    }
    return NULL;
}

static void print_text(const struct option_table *table, FILE *out)
{
    (void)fprintf(out, "usage: %s [options] %s\n\n%s\n\noptions:\n", table->program,
                  table->arguments, table->summary);
    for (size_t i = 0; i < table->row_count; i++) {
        const struct option_row *row = &table->rows[i];
        char left[64];
        char letter[8] = "    ";

        if (row->letter != 0)
            (void)snprintf(letter, sizeof(letter), "-%c, ", row->letter);
        (void)snprintf(left, sizeof(left), "%s--%s %s", letter, row->name,
                       row->unit == NULL ? "" : row->unit);
        (void)fprintf(out, "  %-30s %s", left, row->help);
        if (row->type == OPTION_TYPE_NUMBER)
            (void)fprintf(out, " (%llu..%llu, default %llu)", (unsigned long long)row->min,
                          (unsigned long long)row->max, (unsigned long long)row->number_default);
        else if (row->text_default != NULL)
            (void)fprintf(out, " (default %s)", row->text_default);
        (void)fputc('\n', out);
    }
    (void)fprintf(out, "  %-30s %s\n", "-h, --help", "print this");
}

static void print_mdoc(const struct option_table *table, FILE *out)
{
    (void)fprintf(out, ".Bl -tag -width Ds\n");
    for (size_t i = 0; i < table->row_count; i++) {
        const struct option_row *row = &table->rows[i];

        (void)fprintf(out, ".It ");
        if (row->letter != 0)
            (void)fprintf(out, "Fl %c , ", row->letter);
        (void)fprintf(out, "Fl Fl %s", row->name);
        if (row->unit != NULL)
            (void)fprintf(out, " Ar %s", row->unit);
        (void)fprintf(out, "\n%s.\n", row->help);
        if (row->type == OPTION_TYPE_NUMBER)
            (void)fprintf(out, "From %llu to %llu; default %llu.\n", (unsigned long long)row->min,
                          (unsigned long long)row->max, (unsigned long long)row->number_default);
        else if (row->text_default != NULL)
            (void)fprintf(out, "Default:\n.Ql %s .\n", row->text_default);
    }
    (void)fprintf(out, ".It Fl h , Fl Fl help\nPrint the options.\n.El\n");
}

/* Completes the names of options; everything else falls back to file names. */
static void print_bash(const struct option_table *table, FILE *out)
{
    (void)fprintf(out, "_%s() {\n    COMPREPLY=()\n    case $2 in -*) COMPREPLY=($(compgen -W '",
                  table->program);
    for (size_t i = 0; i < table->row_count; i++)
        (void)fprintf(out, "--%s ", table->rows[i].name);
    (void)fprintf(out, "--help' -- \"$2\")) ;; esac\n}\ncomplete -o default -F _%s %s\n",
                  table->program, table->program);
}

void option_table_print_help(const struct option_table *table, enum option_help help, FILE *out)
{
    switch (help) {
    case OPTION_HELP_TEXT: print_text(table, out); break;
    case OPTION_HELP_MDOC:
        (void)fprintf(out, ".Sh OPTIONS\n");
        print_mdoc(table, out);
        break;
    case OPTION_HELP_MDOC_LIST: print_mdoc(table, out); break;
    case OPTION_HELP_BASH: print_bash(table, out); break;
    }
}
