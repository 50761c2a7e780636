/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bitmap.h"
#include "base/unit_test.h"
#include "vmm/memory/guest_memory.h"

static struct guest_memory *two_regions(void)
{
    struct guest_memory *memory = NULL;
    ASSERT_OK(guest_memory_create(4 * MIB, 3 * MIB, &memory));
    return memory;
}

TEST(memory_above_the_hole_starts_at_4_gib)
{
    struct guest_memory *memory = two_regions();

    assert_int_equal(guest_memory_region_count(memory), 2);
    assert_int_equal(guest_memory_region(memory, 1).start.value, 4 * GIB);
    assert_int_equal(guest_memory_region(memory, 1).file_offset, 3 * MIB);
    assert_int_equal(guest_memory_page_count(memory), 1024);
    guest_memory_destroy(memory);
}

TEST(what_is_written_is_read_back_and_marked)
{
    struct guest_memory *memory = two_regions();
    const uint64_t at = 4 * GIB + PAGE_BYTES - 2;
    char text[5] = {0};

    assert_true(guest_write(memory, gpa(at), "four", 5));
    assert_true(guest_read(memory, gpa(at), text, 5));

    assert_string_equal(text, "four");
    const uint64_t *marks = guest_memory_device_marks(memory);
    assert_int_equal(bitmap_count(marks, 1024), 2);
    assert_true(bitmap_test(marks, 768));
    assert_true(bitmap_test(marks, 769));
    guest_memory_destroy(memory);
}

TEST(a_range_that_is_not_wholly_ram_is_refused_and_nothing_is_marked)
{
    struct guest_memory *memory = two_regions();
    uint8_t bytes[16] = {1};
    struct iovec iovs[2];

    assert_false(guest_write(memory, gpa(3 * MIB - 8), bytes, 16));
    assert_false(guest_read(memory, gpa(4 * GIB + MIB - 8), bytes, 16));
    assert_false(guest_read(memory, gpa(UINT64_MAX - 7), bytes, 16));
    assert_int_equal(guest_span(memory, gpa(3 * MIB - 8), 16, iovs, 2), 0);
    assert_int_equal(bitmap_count(guest_memory_device_marks(memory), 1024), 0);
    guest_memory_destroy(memory);
}

TEST(ring_indexes_must_be_even_and_in_ram)
{
    struct guest_memory *memory = two_regions();
    uint16_t value = 0;

    assert_true(guest_store_release16(memory, gpa(0x1000), 0x1234));
    assert_true(guest_load_acquire16(memory, gpa(0x1000), &value));
    assert_int_equal(value, 0x1234);
    assert_false(guest_load_acquire16(memory, gpa(0x1001), &value));
    assert_false(guest_store_release16(memory, gpa(3 * MIB), 1));
    assert_true(bitmap_test(guest_memory_device_marks(memory), 1));
    guest_memory_destroy(memory);
}

TEST(a_lent_span_is_the_memory_file_and_marked_on_demand)
{
    struct guest_memory *memory = two_regions();
    struct iovec iov;
    char text[3] = {0};

    assert_int_equal(guest_span(memory, gpa(4 * GIB), 3, &iov, 1), 1);
    memcpy(iov.iov_base, "hi", 3);
    guest_span_dirty(memory, gpa(4 * GIB), 3);

    assert_int_equal(pread(guest_memory_fd(memory), text, 3, 3 * MIB), 3);
    assert_string_equal(text, "hi");
    assert_int_equal(bitmap_count(guest_memory_device_marks(memory), 1024), 1);
    guest_memory_destroy(memory);
}

TEST(a_borrower_can_not_shrink_the_file)
{
    struct guest_memory *memory = two_regions();

    assert_int_equal(ftruncate(guest_memory_fd(memory), 0), -1);
    guest_memory_destroy(memory);
}

TEST(impossible_sizes_are_refused)
{
    struct guest_memory *memory = NULL;

    assert_fails(guest_memory_create(0, 0, &memory), ERR_INVALID);
    assert_fails(guest_memory_create(MIB + 1, MIB, &memory), ERR_INVALID);
    assert_fails(guest_memory_create(4 * GIB, 4 * GIB, &memory), ERR_INVALID);
    assert_fails(guest_memory_create(MIB, 2 * MIB, &memory), ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_above_the_hole_starts_at_4_gib),
        cmocka_unit_test(what_is_written_is_read_back_and_marked),
        cmocka_unit_test(a_range_that_is_not_wholly_ram_is_refused_and_nothing_is_marked),
        cmocka_unit_test(ring_indexes_must_be_even_and_in_ram),
        cmocka_unit_test(a_lent_span_is_the_memory_file_and_marked_on_demand),
        cmocka_unit_test(a_borrower_can_not_shrink_the_file),
        cmocka_unit_test(impossible_sizes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
