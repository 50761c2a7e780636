/* SPDX-License-Identifier: Apache-2.0 */
#include "base/checked_math.h"
#include "base/unit_test.h"
#include "tools/program_size.h"

TEST(sizes_are_read_in_units_of_1024)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } rows[] = {
        {"0", 0},
        {"512", 512},
        {"1B", 1},
        {"64k", 65536},
        {"64K", 65536},
        {"3MiB", 3u << 20},
        {"10G", (uint64_t)10 << 30},
        {"2T", (uint64_t)2 << 40},
        {"15E", (uint64_t)15 << 60},
    };

    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        uint64_t bytes = 1;
        ASSERT_OK(program_size_parse("size", rows[i].text, &bytes));
        assert_true(bytes == rows[i].bytes);
    }
}

TEST(what_is_no_size_is_refused)
{
    static const char *const texts[] = {
        "", "k", "-1", "1.5G", "10X", "10GB", "10 G", "16E", "99999999999999999999"};

    for (size_t i = 0; i < ARRAY_COUNT(texts); i++) {
        uint64_t bytes = 7;
        assert_fails(program_size_parse("size", texts[i], &bytes), ERR_INVALID);
        assert_true(bytes == 7);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_are_read_in_units_of_1024),
        cmocka_unit_test(what_is_no_size_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
