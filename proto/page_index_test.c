/* SPDX-License-Identifier: Apache-2.0 */
/*
 * page_index_test.c - what was written is found, and damage anywhere is noticed.
 */
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/unit_test.h"
#include "proto/page_index.h"

#define PAGES (PAGE_INDEX_CHUNK_ENTRIES * 2 + 100)

static struct page_location sample_location(uint64_t page)
{
    if (page % 3 == 0)
        return (struct page_location){.is_zero = true};
    return (struct page_location){
        .file = (uint32_t)(page % 2), .file_page = page * 7, .checksum = page * 1000003};
}

static int write_sample(uint64_t pages, uint64_t *out_checksum)
{
    struct page_index_builder *builder;
    int fd = memfd_create("index", MFD_CLOEXEC);
    assert_true(fd >= 0);
    ASSERT_OK(page_index_builder_create(pages, &builder));
    for (uint64_t page = 0; page < pages; page++)
        page_index_builder_set(builder, page, sample_location(page));
    ASSERT_OK(page_index_builder_write(builder, 2, fd, "sample", out_checksum));
    page_index_builder_destroy(builder);
    return fd;
}

static void assert_location(struct page_location found, struct page_location expected)
{
    assert_int_equal(found.is_zero, expected.is_zero);
    if (expected.is_zero)
        return;
    assert_int_equal(found.file, expected.file);
    assert_int_equal(found.file_page, expected.file_page);
    assert_int_equal(found.checksum, expected.checksum);
}

TEST(every_page_is_found_where_it_was_put)
{
    uint64_t checksum;
    int fd = write_sample(PAGES, &checksum);
    struct page_index *index;
    ASSERT_OK(page_index_open(fd, "sample", checksum, &index));
    close(fd);

    assert_int_equal(page_index_page_count(index), PAGES);
    assert_int_equal(page_index_file_count(index), 2);
    for (uint64_t page = 0; page < PAGES; page++) {
        struct page_location location;
        ASSERT_OK(page_index_find(index, page, &location));
        assert_location(location, sample_location(page));
    }
    struct page_location location;
    assert_fails(page_index_find(index, PAGES, &location), ERR_INVALID);
    page_index_close(index);
}

TEST(a_child_index_starts_from_its_parents)
{
    uint64_t checksum;
    int fd = write_sample(PAGES, &checksum);
    struct page_index *parent, *child;
    struct page_index_builder *builder;
    ASSERT_OK(page_index_open(fd, "parent", checksum, &parent));
    ASSERT_OK(page_index_builder_create(PAGES, &builder));
    ASSERT_OK(page_index_builder_copy(builder, parent));
    struct page_location changed = {.file = 2, .file_page = 0, .checksum = 5};
    page_index_builder_set(builder, 4, changed);
    assert_int_equal(ftruncate(fd, 0), 0);
    page_index_close(parent);
    ASSERT_OK(page_index_builder_write(builder, 3, fd, "child", &checksum));
    page_index_builder_destroy(builder);

    ASSERT_OK(page_index_open(fd, "child", checksum, &child));
    struct page_location location;
    ASSERT_OK(page_index_find(child, 4, &location));
    assert_location(location, changed);
    ASSERT_OK(page_index_find(child, 5, &location));
    assert_location(location, sample_location(5));
    page_index_close(child);
    close(fd);
}

TEST(a_parent_of_another_size_is_refused)
{
    uint64_t checksum;
    int fd = write_sample(PAGES, &checksum);
    struct page_index *parent;
    struct page_index_builder *builder;
    ASSERT_OK(page_index_open(fd, "parent", checksum, &parent));
    ASSERT_OK(page_index_builder_create(PAGES + 1, &builder));

    assert_fails(page_index_builder_copy(builder, parent), ERR_INVALID);
    page_index_builder_destroy(builder);
    page_index_close(parent);
    close(fd);
}

/* Reads the whole index as a restore would. */
static struct err *walk(int fd, uint64_t checksum)
{
    struct page_index *index;
    TRY(page_index_open(fd, "damaged", checksum, &index));
    struct err *err = NULL;
    for (uint64_t page = 0; page < page_index_page_count(index) && err == NULL; page++) {
        struct page_location location;
        err = page_index_find(index, page, &location);
    }
    page_index_close(index);
    return err;
}

TEST(a_flipped_bit_anywhere_that_is_used_is_noticed)
{
    uint64_t checksum;
    int fd = write_sample(200, &checksum);
    struct stat status;
    assert_int_equal(fstat(fd, &status), 0);

    for (off_t at = 0; at < status.st_size; at++) {
        if (at >= 4096 + 8 && at < 8192) /* padding of the sums table */
            continue;
        uint8_t byte;
        assert_int_equal(pread(fd, &byte, 1, at), 1);
        byte ^= (uint8_t)(1 << (at % 8));
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
        struct err *err = walk(fd, checksum);
        assert_non_null(err);
        err_free(err);
        byte ^= (uint8_t)(1 << (at % 8));
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    }
    ASSERT_OK(walk(fd, checksum));
    close(fd);
}

TEST(a_file_cut_short_is_refused)
{
    uint64_t checksum;
    int fd = write_sample(200, &checksum);
    static const off_t lengths[] = {11391, 8192, 8191, 4096, 4095, 1, 0};

    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        assert_int_equal(ftruncate(fd, lengths[i]), 0);
        assert_fails(walk(fd, checksum), ERR_INVALID);
    }
    close(fd);
}

TEST(an_index_of_other_content_is_refused_by_its_head)
{
    uint64_t checksum, other;
    int fd = write_sample(200, &checksum);
    close(write_sample(201, &other));

    assert_fails(walk(fd, other), ERR_INVALID);
    close(fd);
}

TEST(a_run_ends_where_the_next_page_is_elsewhere)
{
    struct page_index_builder *builder;
    struct page_index *index;
    struct page_location location;
    uint64_t checksum, count;
    int fd = memfd_create("index", MFD_CLOEXEC);
    ASSERT_OK(page_index_builder_create(10, &builder));
    for (uint64_t page = 0; page < 6; page++) /* two files, then zero pages */
        page_index_builder_set(builder, page,
                               (struct page_location){.file = page >= 4, .file_page = page});
    ASSERT_OK(page_index_builder_write(builder, 2, fd, "sample", &checksum));
    page_index_builder_destroy(builder);
    ASSERT_OK(page_index_open(fd, "sample", checksum, &index));

    ASSERT_OK(page_index_find_run(index, 1, 10, &location, &count));
    assert_int_equal(location.file_page, 1);
    assert_int_equal(count, 3);
    ASSERT_OK(page_index_find_run(index, 0, 2, &location, &count));
    assert_int_equal(count, 2);
    ASSERT_OK(page_index_find_run(index, 6, 4, &location, &count));
    assert_true(location.is_zero);
    assert_int_equal(count, 4);
    page_index_close(index);
    close(fd);
}

TEST(a_file_number_that_is_not_listed_is_refused)
{
    struct page_index_builder *builder;
    uint64_t checksum;
    int fd = memfd_create("index", MFD_CLOEXEC);
    ASSERT_OK(page_index_builder_create(1, &builder));
    page_index_builder_set(builder, 0, (struct page_location){.file = 2});
    ASSERT_OK(page_index_builder_write(builder, 2, fd, "sample", &checksum));
    page_index_builder_destroy(builder);

    assert_fails(walk(fd, checksum), ERR_INVALID);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_page_is_found_where_it_was_put),
        cmocka_unit_test(a_child_index_starts_from_its_parents),
        cmocka_unit_test(a_parent_of_another_size_is_refused),
        cmocka_unit_test(a_flipped_bit_anywhere_that_is_used_is_noticed),
        cmocka_unit_test(a_file_cut_short_is_refused),
        cmocka_unit_test(an_index_of_other_content_is_refused_by_its_head),
        cmocka_unit_test(a_run_ends_where_the_next_page_is_elsewhere),
        cmocka_unit_test(a_file_number_that_is_not_listed_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
