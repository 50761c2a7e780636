/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/unit_test.h"
#include "snapshot/snapshot_id.h"

TEST(an_id_starts_with_the_time_in_utc)
{
    struct snapshot_id id;

    ASSERT_OK(snapshot_id_make((uint64_t)1700000000 * NS_PER_S + 1234 * NS_PER_US, &id));

    assert_memory_equal(id.text, "20231114T221320.001234Z-", 24);
    assert_true(snapshot_id_is_valid(id.text));
}

TEST(later_ids_sort_behind_earlier_ones)
{
    struct snapshot_id first, second;

    ASSERT_OK(snapshot_id_make((uint64_t)999 * NS_PER_S, &first));
    ASSERT_OK(snapshot_id_make((uint64_t)1000 * NS_PER_S, &second));

    assert_true(strcmp(first.text, second.text) < 0);
}

TEST(ids_of_the_same_instant_differ)
{
    struct snapshot_id first, second;

    ASSERT_OK(snapshot_id_make(NS_PER_S, &first));
    ASSERT_OK(snapshot_id_make(NS_PER_S, &second));

    assert_string_not_equal(first.text, second.text);
}

TEST(texts_that_could_leave_the_folder_are_no_ids)
{
    static const char *const texts[] = {
        "",
        ".",
        "..",
        "20231114T221320.001234Z-",
        "20231114T221320.001234Z-0123456G",
        "20231114T221320.001234Z-0123456/",
        "../../../../../../../../etc/host",
        "20231114T221320.001234Z-012345678",
    };

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        assert_false(snapshot_id_is_valid(texts[i]));
}

TEST(the_time_in_a_name_is_the_one_that_it_was_made_with)
{
    const uint64_t time_ns = 1795442852123456ull * NS_PER_US;
    struct snapshot_id id;

    ASSERT_OK(snapshot_id_make(time_ns + 999, &id));
    assert_int_equal(snapshot_id_time_ns(&id), time_ns);
    (void)snprintf(id.text, sizeof(id.text), "99991231T235959.999999Z-00000000");
    assert_true(snapshot_id_is_valid(id.text));
    assert_int_equal(snapshot_id_time_ns(&id), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_id_starts_with_the_time_in_utc),
        cmocka_unit_test(later_ids_sort_behind_earlier_ones),
        cmocka_unit_test(ids_of_the_same_instant_differ),
        cmocka_unit_test(texts_that_could_leave_the_folder_are_no_ids),
        cmocka_unit_test(the_time_in_a_name_is_the_one_that_it_was_made_with),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
