/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/file_io.h"
#include "base/limits.h"
#include "base/unit_test.h"
#include "proto/page_index.h"
#include "snapshot/memory_writer.h"

#define PAGES 2000u

DEFINE_CLEANUP(index, struct page_index, page_index_close)

static int new_file(void)
{
    int fd = memfd_create("part", MFD_CLOEXEC);

    assert_true(fd >= 0);
    return fd;
}

static struct err *put(struct memory_writer *writer, uint64_t page, int value)
{
    uint8_t content[PAGE_BYTES];

    memset(content, value, sizeof(content));
    return memory_writer_put(writer, page, content);
}

static struct page_index *finish(struct memory_writer *writer)
{
    CLEANUP(cleanup_fd) int fd = new_file();
    struct page_index *index = NULL;
    uint64_t checksum = 0;

    ASSERT_OK(memory_writer_finish(writer));
    ASSERT_OK(memory_writer_write_index(writer, fd, &checksum));
    ASSERT_OK(page_index_open(fd, "test", checksum, &index));
    return index;
}

/* The first byte of a page as the index says; 0 for a zero page. */
static int content_of(struct page_index *index, int memory_fd, uint64_t page)
{
    struct page_location location;
    uint8_t byte = 0;

    ASSERT_OK(page_index_find(index, page, &location));
    if (!location.is_zero)
        ASSERT_OK(file_read_at(memory_fd, "memory", &byte, 1, location.file_page * PAGE_BYTES));
    return byte;
}

TEST(pages_are_found_again_and_zero_pages_take_no_room)
{
    CLEANUP(cleanup_fd) int memory_fd = new_file();
    CLEANUP(cleanup_memory_writer) struct memory_writer *writer = NULL;
    CLEANUP(cleanup_index) struct page_index *index = NULL;

    ASSERT_OK(memory_writer_create(dup(memory_fd), PAGES, 0, NULL, &writer));
    for (uint64_t page = 0; page < PAGES; page++)
        ASSERT_OK(put(writer, page, (int)(page % 100)));
    index = finish(writer);

    assert_int_equal(memory_writer_page_count(writer), PAGES - 20);
    assert_int_equal(memory_writer_zero_count(writer), 20);
    for (uint64_t page = 0; page < PAGES; page++)
        assert_int_equal(content_of(index, memory_fd, page), page % 100);
}

TEST(a_page_put_again_is_rewritten_in_its_place)
{
    CLEANUP(cleanup_fd) int memory_fd = new_file();
    CLEANUP(cleanup_memory_writer) struct memory_writer *writer = NULL;
    CLEANUP(cleanup_index) struct page_index *index = NULL;

    ASSERT_OK(memory_writer_create(dup(memory_fd), PAGES, 0, NULL, &writer));
    for (uint64_t page = 0; page < 300; page++)
        ASSERT_OK(put(writer, page, 1));
    ASSERT_OK(put(writer, 10, 2));  /* written already */
    ASSERT_OK(put(writer, 299, 3)); /* still in the batch */
    ASSERT_OK(put(writer, 11, 0));  /* a zero page now */
    ASSERT_OK(put(writer, 298, 0));
    ASSERT_OK(put(writer, 298, 4)); /* and content again */
    index = finish(writer);

    assert_int_equal(memory_writer_page_count(writer), 301);
    assert_int_equal(content_of(index, memory_fd, 10), 2);
    assert_int_equal(content_of(index, memory_fd, 299), 3);
    assert_int_equal(content_of(index, memory_fd, 11), 0);
    assert_int_equal(content_of(index, memory_fd, 298), 4);
    assert_int_equal(content_of(index, memory_fd, 297), 1);
}

TEST(a_child_inherits_what_it_does_not_put)
{
    CLEANUP(cleanup_memory_writer) struct memory_writer *parent = NULL;
    CLEANUP(cleanup_memory_writer) struct memory_writer *child = NULL;
    CLEANUP(cleanup_index) struct page_index *parent_index = NULL;
    CLEANUP(cleanup_index) struct page_index *index = NULL;
    struct page_location location;

    ASSERT_OK(memory_writer_create(new_file(), PAGES, 0, NULL, &parent));
    ASSERT_OK(put(parent, 1, 1));
    ASSERT_OK(put(parent, 2, 1));
    ASSERT_OK(put(parent, 3, 1));
    parent_index = finish(parent);
    ASSERT_OK(memory_writer_create(new_file(), PAGES, 1, parent_index, &child));
    ASSERT_OK(put(child, 2, 5));
    ASSERT_OK(put(child, 3, 0));
    index = finish(child);

    assert_int_equal(page_index_file_count(index), 2);
    ASSERT_OK(page_index_find(index, 1, &location));
    assert_int_equal(location.file, 0);
    ASSERT_OK(page_index_find(index, 2, &location));
    assert_int_equal(location.file, 1);
    assert_int_equal(location.file_page, 0);
    ASSERT_OK(page_index_find(index, 3, &location));
    assert_true(location.is_zero);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_are_found_again_and_zero_pages_take_no_room),
        cmocka_unit_test(a_page_put_again_is_rewritten_in_its_place),
        cmocka_unit_test(a_child_inherits_what_it_does_not_put),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
