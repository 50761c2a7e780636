/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unit_test.h - cmocka, with the headers that it wants in the order that it wants them.
 */
#ifndef BASE_UNIT_TEST_H
#define BASE_UNIT_TEST_H

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
/* clang-format on */

#include "base/err.h"

/* A test reads as a sentence: TEST(a_truncated_section_is_refused) { ... } */
#define TEST(name) static void name(void **unused __attribute__((unused)))

/* Shows the message when there is an error after all. */
#define ASSERT_OK(expr) assert_succeeds((expr), __FILE__, __LINE__)

static inline void assert_succeeds(struct err *err, const char *file, int line)
{
    if (err == NULL)
        return;
    print_error("%s\n", err_message(err));
    err_free(err);
    _fail(file, line);
    abort(); /* it does not return, which its declaration does not say */
}

static inline void assert_fails(struct err *err, enum err_kind kind)
{
    assert_non_null(err);
    assert_int_equal(err_kind(err), kind);
    err_free(err);
}

#endif
