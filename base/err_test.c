/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "base/err.h"
#include "base/unit_test.h"

TEST(an_error_keeps_its_kind_and_message)
{
    struct err *err = err_new(ERR_STATE, "pause '%s': already paused", "web");

    assert_int_equal(err_kind(err), ERR_STATE);
    assert_string_equal(err_message(err), "pause 'web': already paused");
    err_free(err);
}

TEST(the_reason_of_errno_ends_the_message)
{
    struct err *err = err_errno(ENOSPC, "write '%s'", "disk");

    assert_int_equal(err_kind(err), ERR_IO);
    assert_string_equal(err_message(err), "write 'disk': No space left on device");
    err_free(err);
}

TEST(the_hosts_reason_is_kept_through_wraps)
{
    struct err *err = err_wrap(err_errno(ENOSPC, "write"), "disk");

    assert_int_equal(err_errnum(err), ENOSPC);
    err_free(err);
    err = err_new(ERR_IO, "write");
    assert_int_equal(err_errnum(err), 0);
    err_free(err);
}

TEST(a_wrap_puts_context_in_front_and_keeps_the_kind)
{
    struct err *err = err_wrap(err_new(ERR_INVALID, "size is 0"), "load disk %d", 2);

    assert_int_equal(err_kind(err), ERR_INVALID);
    assert_string_equal(err_message(err), "load disk 2: size is 0");
    err_free(err);
}

TEST(wrapping_success_is_success)
{
    assert_null(err_wrap(NULL, "nothing happened"));
}

TEST(many_wraps_and_long_texts_are_cut_and_never_overrun)
{
    char text[4096];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';

    struct err *err = err_errno(EIO, "%s", text);
    for (int i = 0; i < 10; i++)
        err = err_wrap(err, "step %d %s", i, text);

    assert_memory_equal(err_message(err), "step 9 ", 7);
    assert_in_range(strlen(err_message(err)), 100, 2048);
    err_free(err);
}

TEST(every_kind_has_a_name_of_its_own)
{
    for (enum err_kind kind = ERR_INVALID; kind <= ERR_DENIED; kind++) {
        assert_non_null(err_kind_name(kind));
        for (enum err_kind other = ERR_INVALID; other < kind; other++)
            assert_string_not_equal(err_kind_name(kind), err_kind_name(other));
    }
}

TEST(freeing_nothing_is_allowed)
{
    err_free(NULL);
}

static struct err *two_steps(struct err *first, bool *reached_second)
{
    TRY(first);
    *reached_second = true;
    return NULL;
}

TEST(try_returns_the_first_error_and_goes_on_without_one)
{
    bool reached = false;

    assert_fails(two_steps(err_new(ERR_TIMEOUT, "first"), &reached), ERR_TIMEOUT);
    assert_false(reached);
    ASSERT_OK(two_steps(NULL, &reached));
    assert_true(reached);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_error_keeps_its_kind_and_message),
        cmocka_unit_test(the_reason_of_errno_ends_the_message),
        cmocka_unit_test(the_hosts_reason_is_kept_through_wraps),
        cmocka_unit_test(a_wrap_puts_context_in_front_and_keeps_the_kind),
        cmocka_unit_test(wrapping_success_is_success),
        cmocka_unit_test(many_wraps_and_long_texts_are_cut_and_never_overrun),
        cmocka_unit_test(every_kind_has_a_name_of_its_own),
        cmocka_unit_test(freeing_nothing_is_allowed),
        cmocka_unit_test(try_returns_the_first_error_and_goes_on_without_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
