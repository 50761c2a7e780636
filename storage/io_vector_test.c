/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/unit_test.h"
#include "storage/io_vector.h"

static char text[] = "0123456789abcdef";
static const struct iovec pieces[] = {{text, 3}, {text + 3, 1}, {text + 4, 12}};

TEST(every_slice_has_the_bytes_of_its_range)
{
    for (size_t skip = 0; skip <= 16; skip++) {
        for (size_t len = 0; skip + len <= 16; len++) {
            struct io_vector slice = {.count = 0};
            char got[16];

            io_vector_append_slice(&slice, pieces, 3, skip, len);
            io_vector_gather(slice.iovs, slice.count, got);

            assert_int_equal(io_vector_bytes(slice.iovs, slice.count), len);
            assert_memory_equal(got, text + skip, len);
        }
    }
}

TEST(advancing_leaves_the_rest)
{
    for (size_t done = 0; done <= 16; done++) {
        struct io_vector slice = {.count = 0};
        char got[16];

        io_vector_append_slice(&slice, pieces, 3, 0, 16);
        io_vector_advance(&slice, done);
        io_vector_gather(slice.iovs, slice.count, got);

        assert_int_equal(io_vector_bytes(slice.iovs, slice.count), 16 - done);
        assert_memory_equal(got, text + done, 16 - done);
    }
}

TEST(scattering_is_the_reverse_of_gathering)
{
    char target[16] = {0};
    const struct iovec into[] = {{target + 8, 8}, {target, 8}};

    io_vector_scatter(into, 2, text);

    assert_memory_equal(target, "89abcdef01234567", 16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_slice_has_the_bytes_of_its_range),
        cmocka_unit_test(advancing_leaves_the_rest),
        cmocka_unit_test(scattering_is_the_reverse_of_gathering),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
