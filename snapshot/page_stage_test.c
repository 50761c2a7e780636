/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/limits.h"
#include "base/unit_test.h"
#include "snapshot/page_stage.h"

static uint8_t content[PAGE_BYTES];

static struct err *put(struct page_stage *stage, uint64_t page, int value)
{
    memset(content, value, sizeof(content));
    return page_stage_put(stage, page, content);
}

TEST(a_page_put_twice_keeps_its_place_and_the_newer_content)
{
    CLEANUP(cleanup_page_stage) struct page_stage *stage = NULL;
    uint64_t page = 0;

    ASSERT_OK(page_stage_create(100, 10, &stage));
    ASSERT_OK(put(stage, 7, 1));
    ASSERT_OK(put(stage, 99, 2));
    ASSERT_OK(put(stage, 7, 3));

    assert_int_equal(page_stage_count(stage), 2);
    assert_int_equal(page_stage_get(stage, 0, &page)[PAGE_BYTES - 1], 3);
    assert_int_equal(page, 7);
    assert_int_equal(page_stage_get(stage, 1, &page)[0], 2);
    assert_int_equal(page, 99);
}

TEST(a_full_stage_refuses_new_pages_but_not_newer_content)
{
    CLEANUP(cleanup_page_stage) struct page_stage *stage = NULL;

    ASSERT_OK(page_stage_create(100, 2, &stage));
    page_stage_prepare(stage, 50);
    ASSERT_OK(put(stage, 1, 1));
    ASSERT_OK(put(stage, 2, 1));

    assert_fails(put(stage, 3, 1), ERR_NO_MEMORY);
    ASSERT_OK(put(stage, 2, 9));
}

TEST(a_cleared_stage_is_empty_and_holds_as_much_again)
{
    CLEANUP(cleanup_page_stage) struct page_stage *stage = NULL;
    uint64_t page = 0;

    ASSERT_OK(page_stage_create(100, 1, &stage));
    ASSERT_OK(put(stage, 1, 1));
    page_stage_clear(stage);
    ASSERT_OK(put(stage, 2, 5));

    assert_int_equal(page_stage_count(stage), 1);
    assert_int_equal(page_stage_get(stage, 0, &page)[0], 5);
    assert_int_equal(page, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_page_put_twice_keeps_its_place_and_the_newer_content),
        cmocka_unit_test(a_full_stage_refuses_new_pages_but_not_newer_content),
        cmocka_unit_test(a_cleared_stage_is_empty_and_holds_as_much_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
