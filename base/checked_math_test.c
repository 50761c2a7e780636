/* SPDX-License-Identifier: Apache-2.0 */
#include "base/checked_math.h"
#include "base/unit_test.h"

TEST(sums_and_products_that_wrap_are_refused)
{
    uint64_t out = 7;

    assert_true(checked_add(UINT64_MAX - 1, 1, &out));
    assert_int_equal(out, UINT64_MAX);
    assert_false(checked_add(UINT64_MAX, 1, &out));
    assert_true(checked_mul((uint64_t)1 << 32, UINT32_MAX, &out));
    assert_false(checked_mul((uint64_t)1 << 32, (uint64_t)1 << 32, &out));
}

TEST(a_range_at_the_end_is_within_and_one_beyond_is_not)
{
    assert_true(range_is_within(0, 10, 10));
    assert_true(range_is_within(10, 0, 10));
    assert_false(range_is_within(10, 1, 10));
    assert_false(range_is_within(11, 0, 10));
    assert_false(range_is_within(1, UINT64_MAX, 10));
}

TEST(rounding_goes_the_way_its_name_says)
{
    assert_int_equal(align_down(4097, 4096), 4096);
    assert_int_equal(align_up(4097, 4096), 8192);
    assert_int_equal(align_up(4096, 4096), 4096);
    assert_int_equal(divide_up(0, 5), 0);
    assert_int_equal(divide_up(11, 5), 3);
    assert_int_equal(divide_up(UINT64_MAX, 2), (uint64_t)1 << 63);
}

TEST(powers_of_two_are_known)
{
    assert_false(is_power_of_two(0));
    assert_true(is_power_of_two(1));
    assert_false(is_power_of_two(3));
    assert_true(is_power_of_two((uint64_t)1 << 63));
}

TEST(a_member_leads_to_its_struct)
{
    struct outer {
        int before;
        int member;
    } outer = {.before = 1, .member = 2};

    assert_ptr_equal(CONTAINER_OF(&outer.member, struct outer, member), &outer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_and_products_that_wrap_are_refused),
        cmocka_unit_test(a_range_at_the_end_is_within_and_one_beyond_is_not),
        cmocka_unit_test(rounding_goes_the_way_its_name_says),
        cmocka_unit_test(powers_of_two_are_known),
        cmocka_unit_test(a_member_leads_to_its_struct),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
