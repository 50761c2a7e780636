/* SPDX-License-Identifier: Apache-2.0 */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/cleanup.h"
#include "base/limits.h"
#include "base/unit_test.h"
#include "proto/page_index.h"
#include "vmm/memory/guest_memory.h"
#include "vmm/memory/lazy_memory.h"

#define PAGES 4096u /* 16 MiB */

DEFINE_CLEANUP(memory, struct guest_memory, guest_memory_destroy)
DEFINE_CLEANUP(lazy, struct lazy_memory, lazy_memory_destroy)

/* Index and two page files, in the order of the control call. */
static int fds[3];
static uint64_t index_checksum;

static int ended_fd;
static struct err *ended_with;

static void on_end(void *context, struct err *err)
{
    (void)context;
    ended_with = err;
    assert_int_equal(write(ended_fd, &(uint64_t){1}, 8), 8);
}

static void wait_for_end(void)
{
    struct pollfd polled = {.fd = ended_fd, .events = POLLIN};

    uint64_t count = 0;

    assert_int_equal(poll(&polled, 1, 10000), 1);
    assert_int_equal(read(ended_fd, &count, sizeof(count)), sizeof(count));
}

/* What page holds: zeros in every fifth and in the last quarter. */
static uint8_t value_of(uint64_t page)
{
    return page % 5 == 0 || page >= PAGES * 3 / 4 ? 0 : (uint8_t)(page % 250 + 1);
}

static void write_pages(struct page_index_builder *builder)
{
    uint64_t file_pages[2] = {0, 0};

    for (uint64_t page = 0; page < PAGES; page++) {
        uint8_t content[PAGE_BYTES];
        uint32_t file = page / 7 % 2;
        if (value_of(page) == 0)
            continue;
        memset(content, value_of(page), sizeof(content));
        uint64_t place = file_pages[file]++;
        assert_int_equal(pwrite(fds[file + 1], content, PAGE_BYTES, (off_t)(place * PAGE_BYTES)),
                         PAGE_BYTES);
        page_index_builder_set(builder, page,
                               (struct page_location){
                                   .file = file,
                                   .file_page = place,
                                   .checksum = XXH3_64bits(content, PAGE_BYTES),
                               });
    }
}

static int save(void **state)
{
    struct page_index_builder *builder = NULL;

    (void)state;
    for (size_t i = 0; i < 3; i++)
        fds[i] = memfd_create("part", MFD_CLOEXEC);
    ended_fd = eventfd(0, EFD_CLOEXEC);
    ended_with = NULL;
    ASSERT_OK(page_index_builder_create(PAGES, &builder));
    write_pages(builder);
    ASSERT_OK(page_index_builder_write(builder, 2, fds[0], "test", &index_checksum));
    page_index_builder_destroy(builder);
    return 0;
}

static int drop(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++)
        (void)close(fds[i]);
    (void)close(ended_fd);
    err_free(ended_with);
    return 0;
}

static struct err *start(struct guest_memory *memory, struct lazy_memory **out_lazy)
{
    struct lazy_files files = {.fds = fds, .count = 3};

    return lazy_memory_start(memory, index_checksum, files, on_end, NULL, out_lazy);
}

static void expect_page(struct guest_memory *memory, uint64_t page)
{
    uint8_t content[PAGE_BYTES];
    uint8_t wanted[PAGE_BYTES];

    memset(wanted, value_of(page), sizeof(wanted));
    assert_true(guest_read(memory, gpa(page * PAGE_BYTES), content, sizeof(content)));
    assert_memory_equal(content, wanted, PAGE_BYTES);
}

TEST(pages_are_there_when_they_are_touched_in_any_order)
{
    CLEANUP(cleanup_memory) struct guest_memory *memory = NULL;
    CLEANUP(cleanup_lazy) struct lazy_memory *lazy = NULL;

    ASSERT_OK(guest_memory_create(PAGES * PAGE_BYTES, PAGES * PAGE_BYTES, &memory));
    ASSERT_OK(start(memory, &lazy));
    for (uint64_t i = 0; i < PAGES; i++)
        expect_page(memory, (PAGES - 1 - i) * 1237 % PAGES);
    wait_for_end();

    assert_null(ended_with);
    assert_int_equal(lazy_memory_left_bytes(lazy), 0);
    for (uint64_t page = 0; page < PAGES; page++)
        expect_page(memory, page);
}

/* The last quarter is zeros, which nobody fills: all of it is there at once when the rest is. */
TEST(nobody_who_touches_a_page_at_the_end_waits_for_ever)
{
    for (unsigned round = 0; round < 100; round++) {
        CLEANUP(cleanup_memory) struct guest_memory *memory = NULL;
        CLEANUP(cleanup_lazy) struct lazy_memory *lazy = NULL;

        ASSERT_OK(guest_memory_create(PAGES * PAGE_BYTES, PAGES * PAGE_BYTES, &memory));
        ASSERT_OK(start(memory, &lazy));
        for (uint64_t page = PAGES * 3 / 4; page < PAGES; page++)
            expect_page(memory, page);
        wait_for_end();
        assert_null(ended_with);
    }
}

TEST(what_the_guest_writes_meanwhile_is_kept)
{
    CLEANUP(cleanup_memory) struct guest_memory *memory = NULL;
    CLEANUP(cleanup_lazy) struct lazy_memory *lazy = NULL;
    uint8_t byte = 0;

    ASSERT_OK(guest_memory_create(PAGES * PAGE_BYTES, PAGES * PAGE_BYTES, &memory));
    ASSERT_OK(start(memory, &lazy));
    for (uint64_t page = 3; page < PAGES; page += 100)
        assert_true(guest_write(memory, gpa(page * PAGE_BYTES + 9), "\xfe", 1));
    wait_for_end();

    for (uint64_t page = 3; page < PAGES; page += 100) {
        assert_true(guest_read(memory, gpa(page * PAGE_BYTES + 9), &byte, 1));
        assert_int_equal(byte, 0xfe);
        assert_true(guest_read(memory, gpa(page * PAGE_BYTES + 10), &byte, 1));
        assert_int_equal(byte, value_of(page));
    }
}

TEST(zero_pages_that_nobody_touches_stay_holes)
{
    CLEANUP(cleanup_memory) struct guest_memory *memory = NULL;
    CLEANUP(cleanup_lazy) struct lazy_memory *lazy = NULL;

    ASSERT_OK(guest_memory_create(PAGES * PAGE_BYTES, PAGES * PAGE_BYTES, &memory));
    ASSERT_OK(start(memory, &lazy));
    wait_for_end();

    assert_true(lseek(guest_memory_fd(memory), PAGES * 3 / 4 * (off_t)PAGE_BYTES, SEEK_DATA) < 0);
}

TEST(a_damaged_page_ends_the_loading_with_its_number)
{
    CLEANUP(cleanup_memory) struct guest_memory *memory = NULL;
    CLEANUP(cleanup_lazy) struct lazy_memory *lazy = NULL;

    assert_int_equal(pwrite(fds[1], "x", 1, 4096 * 100 + 5), 1);
    ASSERT_OK(guest_memory_create(PAGES * PAGE_BYTES, PAGES * PAGE_BYTES, &memory));
    struct err *err = start(memory, &lazy);
    if (err != NULL) { /* loaded at once */
        assert_fails(err, ERR_INVALID);
        return;
    }
    wait_for_end();

    assert_non_null(ended_with);
    assert_non_null(strstr(err_message(ended_with), "is damaged"));
}

TEST(loading_can_be_given_up_at_any_time)
{
    CLEANUP(cleanup_memory) struct guest_memory *memory = NULL;
    struct lazy_memory *lazy = NULL;

    ASSERT_OK(guest_memory_create(PAGES * PAGE_BYTES, PAGES * PAGE_BYTES, &memory));
    ASSERT_OK(start(memory, &lazy));
    lazy_memory_destroy(lazy);
}

TEST(memory_that_is_in_use_is_refused)
{
    CLEANUP(cleanup_memory) struct guest_memory *memory = NULL;
    struct lazy_memory *lazy = NULL;

    ASSERT_OK(guest_memory_create(PAGES * PAGE_BYTES, PAGES * PAGE_BYTES, &memory));
    assert_true(guest_write(memory, gpa(5 * PAGE_BYTES), "x", 1));

    assert_fails(start(memory, &lazy), ERR_STATE);
}

TEST(an_index_of_another_size_or_machine_is_refused)
{
    CLEANUP(cleanup_memory) struct guest_memory *memory = NULL;
    struct lazy_memory *lazy = NULL;

    ASSERT_OK(guest_memory_create(PAGES / 2 * PAGE_BYTES, PAGES / 2 * PAGE_BYTES, &memory));
    assert_fails(start(memory, &lazy), ERR_INVALID);
    index_checksum++;
    assert_fails(start(memory, &lazy), ERR_INVALID);
}

#define WITH_SNAPSHOT(test) cmocka_unit_test_setup_teardown(test, save, drop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_SNAPSHOT(pages_are_there_when_they_are_touched_in_any_order),
        WITH_SNAPSHOT(nobody_who_touches_a_page_at_the_end_waits_for_ever),
        WITH_SNAPSHOT(what_the_guest_writes_meanwhile_is_kept),
        WITH_SNAPSHOT(zero_pages_that_nobody_touches_stay_holes),
        WITH_SNAPSHOT(a_damaged_page_ends_the_loading_with_its_number),
        WITH_SNAPSHOT(loading_can_be_given_up_at_any_time),
        WITH_SNAPSHOT(memory_that_is_in_use_is_refused),
        WITH_SNAPSHOT(an_index_of_another_size_or_machine_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
