/* SPDX-License-Identifier: Apache-2.0 */
/*
 * program_json_test.c - the forms of JSON values.
 */
#include "base/unit_test.h"
#include "tools/program_json.h"

TEST(bytes_become_hexadecimal)
{
    json_t *hex = program_json_hex((const uint8_t[]){0x00, 0xfe, 0x12}, 3);
    assert_string_equal(json_string_value(hex), "00fe12");
    json_decref(hex);
}

TEST(text_that_is_not_utf8_is_still_text)
{
    json_t *good = program_json_text("gr\xc3\xbc\xc3\x9f");
    json_t *bad = program_json_text("a\xff"
                                    "b");
    assert_string_equal(json_string_value(good), "gr\xc3\xbc\xc3\x9f");
    assert_string_equal(json_string_value(bad), "a?b");
    json_decref(good);
    json_decref(bad);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_become_hexadecimal),
        cmocka_unit_test(text_that_is_not_utf8_is_still_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
