/* SPDX-License-Identifier: Apache-2.0 */
/*
 * program_units_test.c - numbers as people read them.
 */
#include "base/unit_test.h"
#include "tools/program_units.h"

TEST(bytes_are_readable)
{
    assert_string_equal(readable_bytes(0).text, "0 B");
    assert_string_equal(readable_bytes(1023).text, "1023 B");
    assert_string_equal(readable_bytes(1536).text, "1.5 KiB");
    assert_string_equal(readable_bytes((uint64_t)512 << 20).text, "512 MiB");
    assert_string_equal(readable_bytes(UINT64_MAX).text, "16.0 EiB");
}

TEST(durations_are_readable)
{
    assert_string_equal(readable_ms(999).text, "999 ms");
    assert_string_equal(readable_ms(61000).text, "1 min 1 s");
    assert_string_equal(readable_ms(7500000).text, "2 h 5 min");
    assert_string_equal(readable_ms(UINT64_C(86400000) * 3).text, "3 d 0 h");
    assert_string_equal(readable_us(87).text, "87 us");
    assert_string_equal(readable_us(12345).text, "12.3 ms");
    assert_string_equal(readable_us(3400000).text, "3.4 s");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_readable),
        cmocka_unit_test(durations_are_readable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
