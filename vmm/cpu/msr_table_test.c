/* SPDX-License-Identifier: Apache-2.0 */
#include "base/unit_test.h"
#include "vmm/cpu/msr_table.h"

static bool has(const uint32_t *indices, size_t count, uint32_t index)
{
    for (size_t i = 0; i < count; i++) {
        if (indices[i] == index)
            return true;
    }
    return false;
}

TEST(the_timers_deadline_comes_last)
{
    static const uint32_t listed[] = {MSR_TSC_DEADLINE, 0x174, 0x4b564d01};
    uint32_t chosen[MSR_COUNT_MAX];
    size_t count = msr_table_choose(listed, 3, chosen);

    assert_int_equal(chosen[count - 1], MSR_TSC_DEADLINE);
    assert_true(has(chosen, count, 0x4b564d01));
}

TEST(what_kernels_forget_to_list_is_saved_once)
{
    static const uint32_t listed[] = {0x277, 0xc0000103};
    uint32_t chosen[MSR_COUNT_MAX];
    size_t count = msr_table_choose(listed, 2, chosen);
    size_t twins = 0;

    for (size_t i = 0; i < count; i++)
        twins += chosen[i] == 0x277;
    assert_int_equal(twins, 1);
    assert_true(has(chosen, count, 0x2ff));
    assert_true(has(chosen, count, 0xc0000102));
}

TEST(commands_counters_and_the_tsc_are_not_saved)
{
    static const uint32_t listed[] = {MSR_TSC, 0x49, 0xc1, 0x38f, 0x40000000, 0x480, 0x174};
    uint32_t chosen[MSR_COUNT_MAX];
    size_t count = msr_table_choose(listed, 7, chosen);

    for (size_t i = 0; i < 6; i++)
        assert_false(has(chosen, count, listed[i]));
    assert_true(has(chosen, count, 0x174));
}

TEST(a_list_that_is_too_long_is_cut)
{
    static uint32_t listed[2 * MSR_COUNT_MAX];
    uint32_t chosen[MSR_COUNT_MAX];

    for (uint32_t i = 0; i < 2 * MSR_COUNT_MAX; i++)
        listed[i] = 0x10000 + i;
    assert_int_equal(msr_table_choose(listed, 2 * MSR_COUNT_MAX, chosen), MSR_COUNT_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_timers_deadline_comes_last),
        cmocka_unit_test(what_kernels_forget_to_list_is_saved_once),
        cmocka_unit_test(commands_counters_and_the_tsc_are_not_saved),
        cmocka_unit_test(a_list_that_is_too_long_is_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
