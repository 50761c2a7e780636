/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/option_table.h"
#include "base/unit_test.h"

struct settings {
    uint64_t memory_mib;
    const char *name;
    bool json;
    struct option_list disks;
};

static const struct option_row rows[] = {
    OPTION_NUMBER("memory", 'm', struct settings, memory_mib, "MIB", 1, 4096, 128, "guest memory"),
    OPTION_TEXT("name", 'n', struct settings, name, "NAME", "vm", "name of the machine"),
    OPTION_FLAG("json", 0, struct settings, json, "print JSON"),
    OPTION_LIST("disk", 'd', struct settings, disks, "SPEC", "a disk; may be repeated"),
};

static const struct option_table table = {
    .program = "vm-test",
    .arguments = "KERNEL [INITRD]",
    .summary = "Tries options",
    .rows = rows,
    .row_count = ARRAY_COUNT(rows),
    .operands_min = 1,
    .operands_max = 2,
};

static struct settings settings;
static struct option_result result;

/* Parses "word word ..." as the arguments of a program. */
static struct err *parse(const char *line)
{
    static char copy[2048];
    char *words[128] = {(char[]){"vm-test"}};
    int count = 1;

    (void)snprintf(copy, sizeof(copy), "%s", line);
    for (char *word = strtok(copy, " "); word != NULL; word = strtok(NULL, " "))
        words[count++] = word;
    memset(&settings, 0xff, sizeof(settings));
    return option_table_parse(&table, count, words, &settings, &result);
}

static void assert_refused(const char *line, const char *message_part)
{
    struct err *err = parse(line);

    assert_non_null(err);
    assert_int_equal(err_kind(err), ERR_INVALID);
    if (strstr(err_message(err), message_part) == NULL)
        fail_msg("'%s' is not in '%s'", message_part, err_message(err));
    err_free(err);
}

TEST(defaults_hold_where_nothing_is_said)
{
    ASSERT_OK(parse("kernel"));

    assert_int_equal(settings.memory_mib, 128);
    assert_string_equal(settings.name, "vm");
    assert_false(settings.json);
    assert_int_equal(settings.disks.count, 0);
    assert_int_equal(result.operand_count, 1);
    assert_false(result.help_wanted);
}

TEST(values_follow_names_equal_signs_and_letters)
{
    ASSERT_OK(parse("--memory 256 --name=web --json -d a -d b=c kernel initrd"));

    assert_int_equal(settings.memory_mib, 256);
    assert_string_equal(settings.name, "web");
    assert_true(settings.json);
    assert_int_equal(settings.disks.count, 2);
    assert_string_equal(settings.disks.values[1], "b=c");
    assert_string_equal(result.operands[1], "initrd");
}

TEST(two_dashes_end_the_options)
{
    ASSERT_OK(parse("-- --json -m"));

    assert_false(settings.json);
    assert_string_equal(result.operands[0], "--json");
    assert_string_equal(result.operands[1], "-m");
}

TEST(a_single_dash_is_an_operand)
{
    ASSERT_OK(parse("-"));

    assert_string_equal(result.operands[0], "-");
}

TEST(help_is_understood_before_anything_is_checked)
{
    ASSERT_OK(parse("--help --nonsense"));
    assert_true(result.help_wanted);
    assert_int_equal(result.help, OPTION_HELP_TEXT);
    ASSERT_OK(parse("-h"));
    assert_true(result.help_wanted);
    ASSERT_OK(parse("--help=mdoc"));
    assert_int_equal(result.help, OPTION_HELP_MDOC);
    ASSERT_OK(parse("--help=bash"));
    assert_int_equal(result.help, OPTION_HELP_BASH);
    assert_refused("--help=html k", "unknown option '--help=html'");
}

TEST(a_value_may_look_like_an_option)
{
    ASSERT_OK(parse("--name --help kernel"));

    assert_false(result.help_wanted);
    assert_string_equal(settings.name, "--help");
}

TEST(mistakes_are_named)
{
    assert_refused("--memori 1 k", "unknown option '--memori'; see vm-test --help");
    assert_refused("-x k", "unknown option '-x'");
    assert_refused("-m1 k", "unknown option '-m1'");
    assert_refused("--=1 k", "unknown option '--=1'");
    assert_refused("k --memory", "option --memory needs a value (MIB)");
    assert_refused("--json=yes k", "option --json takes no value");
    assert_refused("", "missing argument; usage: vm-test [options] KERNEL [INITRD]");
    assert_refused("a b c", "unexpected argument 'c'");
}

TEST(numbers_are_whole_decimal_and_within_bounds)
{
    assert_refused("-m 0 k", "option --memory: 0 is not in 1..4096");
    assert_refused("-m 4097 k", "4097 is not in 1..4096");
    assert_refused("-m 99999999999999999999999 k", "is not in 1..4096");
    assert_refused("-m -1 k", "'-1' is not a whole number");
    assert_refused("-m +1 k", "'+1' is not a whole number");
    assert_refused("-m 1k k", "'1k' is not a whole number");
    assert_refused("--memory= k", "'' is not a whole number");
    ASSERT_OK(parse("-m 4096 k"));
    assert_int_equal(settings.memory_mib, 4096);
}

TEST(a_list_ends_at_its_limit)
{
    char line[1024];
    memset(line, ' ', sizeof(line));
    for (size_t i = 0; i <= OPTION_LIST_MAX; i++)
        memcpy(&line[i * 5], "-d x ", 5);

    line[OPTION_LIST_MAX * 5] = 'k';
    line[OPTION_LIST_MAX * 5 + 1] = '\0';
    ASSERT_OK(parse(line));
    memcpy(&line[OPTION_LIST_MAX * 5], "-d x k", 7);
    assert_refused(line, "option --disk: given more than 32 times");
}

static struct err *parse_spec(const char *text)
{
    static char copy[256];

    (void)snprintf(copy, sizeof(copy), "%s", text);
    memset(&settings, 0xff, sizeof(settings));
    return option_spec_parse("--disk", rows, ARRAY_COUNT(rows), copy, &settings);
}

TEST(a_spec_is_keys_and_values_between_commas)
{
    ASSERT_OK(parse_spec("name=a=b,json,memory=7"));

    assert_string_equal(settings.name, "a=b");
    assert_true(settings.json);
    assert_int_equal(settings.memory_mib, 7);
}

TEST(mistakes_in_a_spec_are_refused)
{
    static const char *const wrong[] = {"",         "name=a,",  "nam=a",    "name",
                                        "json=off", "memory=x", "memory=0", ",name=a"};

    for (size_t i = 0; i < ARRAY_COUNT(wrong); i++)
        assert_fails(parse_spec(wrong[i]), ERR_INVALID);
}

static char *printed_as(enum option_help help)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);

    assert_non_null(out);
    option_table_print_help(&table, help, out);
    assert_int_equal(fclose(out), 0);
    return text;
}

TEST(help_shows_every_option_with_unit_bounds_and_default)
{
    CLEANUP(cleanup_free) char *text = printed_as(OPTION_HELP_TEXT);

    assert_non_null(strstr(text, "usage: vm-test [options] KERNEL [INITRD]\n"));
    assert_non_null(strstr(text, "-m, --memory MIB"));
    assert_non_null(strstr(text, "guest memory (1..4096, default 128)\n"));
    assert_non_null(strstr(text, "name of the machine (default vm)\n"));
    assert_non_null(strstr(text, "    --json"));
    assert_non_null(strstr(text, "-h, --help"));
}

TEST(mdoc_has_an_item_for_every_option)
{
    CLEANUP(cleanup_free) char *text = printed_as(OPTION_HELP_MDOC);

    assert_non_null(strstr(text, ".It Fl m , Fl Fl memory Ar MIB\n"));
    assert_non_null(strstr(text, "From 1 to 4096; default 128.\n"));
    assert_non_null(strstr(text, ".It Fl Fl json\n"));
    assert_non_null(strstr(text, ".It Fl h , Fl Fl help\n"));
}

TEST(the_completion_is_a_script_that_bash_accepts)
{
    CLEANUP(cleanup_free) char *text = printed_as(OPTION_HELP_BASH);

    assert_non_null(strstr(text, "--memory --name --json --disk --help"));
    assert_non_null(strstr(text, "complete -o default -F _vm-test vm-test\n"));
    FILE *bash = popen("bash -n", "w");
    assert_non_null(bash);
    assert_int_equal(fputs(text, bash) < 0, 0);
    assert_int_equal(pclose(bash), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_hold_where_nothing_is_said),
        cmocka_unit_test(values_follow_names_equal_signs_and_letters),
        cmocka_unit_test(two_dashes_end_the_options),
        cmocka_unit_test(a_single_dash_is_an_operand),
        cmocka_unit_test(help_is_understood_before_anything_is_checked),
        cmocka_unit_test(a_value_may_look_like_an_option),
        cmocka_unit_test(mistakes_are_named),
        cmocka_unit_test(numbers_are_whole_decimal_and_within_bounds),
        cmocka_unit_test(a_list_ends_at_its_limit),
        cmocka_unit_test(a_spec_is_keys_and_values_between_commas),
        cmocka_unit_test(mistakes_in_a_spec_are_refused),
        cmocka_unit_test(help_shows_every_option_with_unit_bounds_and_default),
        cmocka_unit_test(mdoc_has_an_item_for_every_option),
        cmocka_unit_test(the_completion_is_a_script_that_bash_accepts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
