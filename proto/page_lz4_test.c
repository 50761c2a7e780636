/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/unit_test.h"
#include "proto/page_lz4.h"

#define PAGES 4u

static uint8_t pages[PAGES * PAGE_BYTES];
static uint8_t packed[PAGES * PAGE_BYTES];
static uint8_t unpacked[PAGES * PAGE_BYTES];

static void fill_text(void)
{
    for (size_t i = 0; i < sizeof(pages); i++)
        pages[i] = (uint8_t)(i / 64);
}

static void fill_noise(void)
{
    uint64_t state = 1;

    for (size_t i = 0; i < sizeof(pages); i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        pages[i] = (uint8_t)(state >> 56);
    }
}

TEST(pages_come_back_as_they_were)
{
    size_t bytes = 0;

    fill_text();
    assert_true(page_lz4_compress(pages, PAGES, packed, &bytes));

    assert_true(bytes < sizeof(pages) / 2);
    assert_true(page_lz4_decompress(packed, bytes, unpacked, PAGES));
    assert_memory_equal(pages, unpacked, sizeof(pages));
}

TEST(noise_is_refused)
{
    size_t bytes = 0;

    fill_noise();
    assert_false(page_lz4_compress(pages, PAGES, packed, &bytes));
}

TEST(a_block_of_another_length_is_refused)
{
    size_t bytes = 0;

    fill_text();
    assert_true(page_lz4_compress(pages, PAGES, packed, &bytes));

    assert_false(page_lz4_decompress(packed, bytes, unpacked, PAGES - 1));
    assert_false(page_lz4_decompress(packed, bytes - 1, unpacked, PAGES));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_come_back_as_they_were),
        cmocka_unit_test(noise_is_refused),
        cmocka_unit_test(a_block_of_another_length_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
