/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file_io.h"
#include "base/unit_test.h"

static char folder[64];

/* The path of a file in the test's folder; valid until the fourth call after. */
static const char *in_folder(const char *name)
{
    static char paths[4][128];
    static unsigned next;
    char *path = paths[next++ % 4];

    (void)snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
    return path;
}

static unsigned mode_of(const char *path)
{
    struct stat status;

    assert_int_equal(stat(path, &status), 0);
    return status.st_mode & 07777;
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *ftw)
{
    (void)status;
    (void)type;
    (void)ftw;
    return remove(path);
}

static int make_folder(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof(folder), "/tmp/file_io_test.XXXXXX");
    (void)umask(022);
    return mkdtemp(folder) == NULL;
}

static int remove_folder(void **state)
{
    (void)state;
    return nftw(folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

TEST(a_file_is_the_same_by_all_its_names_and_no_other)
{
    struct stat first, link_status, other;

    for (int i = 0; i < 2; i++)
        ASSERT_OK(file_replace(in_folder(i == 0 ? "one" : "two"), "x", 1, 0600));
    assert_int_equal(link(in_folder("one"), in_folder("one-more")), 0);
    assert_int_equal(stat(in_folder("one"), &first), 0);
    assert_int_equal(stat(in_folder("one-more"), &link_status), 0);
    assert_int_equal(stat(in_folder("two"), &other), 0);

    assert_true(file_is_same(&first, &link_status));
    assert_false(file_is_same(&first, &other));
    assert_int_equal(file_compare(&first, &other), -file_compare(&other, &first));
}

TEST(what_is_written_at_an_offset_is_read_back)
{
    const char *path = in_folder("data");
    char back[5] = {0};
    uint64_t bytes = 0;
    CLEANUP(cleanup_fd) int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    ASSERT_OK(file_write_at(fd, path, "hello", 5, 1000));
    ASSERT_OK(file_sync(fd, path));
    ASSERT_OK(file_read_at(fd, path, back, 5, 1000));
    ASSERT_OK(file_size(fd, path, &bytes));

    assert_memory_equal(back, "hello", 5);
    assert_int_equal(bytes, 1005);
}

TEST(reading_past_the_end_is_an_error_that_says_where)
{
    const char *path = in_folder("data");
    char back[10];
    CLEANUP(cleanup_fd) int fd = open(path, O_RDONLY | O_CLOEXEC);

    struct err *err = file_read_at(fd, path, back, 10, 1000);

    assert_non_null(err);
    assert_int_equal(err_kind(err), ERR_INVALID);
    assert_non_null(strstr(err_message(err), "ends at 1005, 5 bytes early"));
    err_free(err);
}

TEST(a_whole_file_comes_with_a_zero_after_it)
{
    CLEANUP(cleanup_free) void *data = NULL;
    size_t len = 0;
    ASSERT_OK(file_replace(in_folder("text"), "abc", 3, 0644));

    ASSERT_OK(file_read_all(in_folder("text"), 3, &data, &len));

    assert_int_equal(len, 3);
    assert_string_equal(data, "abc");
}

TEST(a_file_above_the_limit_is_refused)
{
    void *data = NULL;
    size_t len = 0;
    ASSERT_OK(file_replace(in_folder("text"), "abcd", 4, 0644));

    assert_fails(file_read_all(in_folder("text"), 3, &data, &len), ERR_INVALID);
    assert_null(data);
}

TEST(what_is_not_a_regular_file_is_refused_without_hanging)
{
    void *data = NULL;
    size_t len = 0;
    assert_int_equal(mkfifo(in_folder("fifo"), 0600), 0);

    assert_fails(file_read_all(in_folder("fifo"), 100, &data, &len), ERR_INVALID);
    assert_fails(file_read_all(folder, 100, &data, &len), ERR_INVALID);
    assert_fails(file_read_all(in_folder("missing"), 100, &data, &len), ERR_IO);
}

TEST(replacing_leaves_the_new_content_and_no_temporary_file)
{
    CLEANUP(cleanup_free) void *data = NULL;
    size_t len = 0;

    ASSERT_OK(file_replace(in_folder("manifest"), "old content", 11, 0644));
    ASSERT_OK(file_replace(in_folder("manifest"), "new", 3, 0644));
    ASSERT_OK(file_read_all(in_folder("manifest"), 100, &data, &len));

    assert_string_equal(data, "new");
    assert_int_equal(access(in_folder("manifest.new"), F_OK), -1);
}

TEST(a_failed_replace_keeps_the_old_file)
{
    ASSERT_OK(folder_create(in_folder("taken"), 0700));

    assert_fails(file_replace(in_folder("taken"), "x", 1, 0644), ERR_IO);

    assert_int_equal(mode_of(in_folder("taken")), 0700);
    assert_int_equal(access(in_folder("taken.new"), F_OK), -1);
}

TEST(a_leftover_of_a_crash_does_not_open_a_secret_to_others)
{
    ASSERT_OK(file_replace(in_folder("key.new"), "leftover", 8, 0644));

    ASSERT_OK(file_replace(in_folder("key"), "secret", 6, 0600));

    assert_int_equal(mode_of(in_folder("key")), 0600);
}

TEST(a_link_in_the_place_of_the_temporary_file_is_not_followed)
{
    ASSERT_OK(file_replace(in_folder("victim"), "untouched", 9, 0644));
    assert_int_equal(symlink(in_folder("victim"), in_folder("aim.new")), 0);
    CLEANUP(cleanup_free) void *data = NULL;
    size_t len = 0;

    ASSERT_OK(file_replace(in_folder("aim"), "x", 1, 0644));

    ASSERT_OK(file_read_all(in_folder("victim"), 100, &data, &len));
    assert_string_equal(data, "untouched");
}

TEST(a_folder_is_created_with_its_parents_and_may_exist)
{
    ASSERT_OK(folder_create(in_folder("a/b//c/"), 0700));
    ASSERT_OK(folder_create(in_folder("a/b/c"), 0700));

    assert_int_equal(mode_of(in_folder("a/b/c")), 0700);
    ASSERT_OK(folder_sync(in_folder("a/b/c")));
}

TEST(a_folder_where_a_file_stands_is_refused)
{
    ASSERT_OK(file_replace(in_folder("file"), "", 0, 0644));

    assert_fails(folder_create(in_folder("file"), 0700), ERR_INVALID);
    assert_fails(folder_create(in_folder("file/below"), 0700), ERR_IO);
    assert_fails(folder_create("", 0700), ERR_INVALID);
    assert_fails(folder_sync(in_folder("file")), ERR_IO);
}

TEST(the_folder_of_a_path_is_what_stands_before_the_last_slash)
{
    static const char *const cases[][2] = {
        {"name", "."}, {"/name", "/"}, {"a/b", "a"}, {"/a/b/c", "/a/b"}};

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        CLEANUP(cleanup_free) char *found = NULL;
        ASSERT_OK(folder_of(cases[i][0], &found));
        assert_string_equal(found, cases[i][1]);
    }
}

TEST(a_relative_path_is_made_absolute_and_keeps_its_links)
{
    char *path = NULL;

    assert_int_equal(chdir("/tmp"), 0);
    ASSERT_OK(path_absolute("/x/../y", &path));
    assert_string_equal(path, "/x/../y");
    free(path);
    ASSERT_OK(path_absolute("../y/z", &path));
    assert_non_null(strstr(path, "tmp/../y/z"));
    assert_int_equal(path[0], '/');
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_is_the_same_by_all_its_names_and_no_other),
        cmocka_unit_test(what_is_written_at_an_offset_is_read_back),
        cmocka_unit_test(reading_past_the_end_is_an_error_that_says_where),
        cmocka_unit_test(a_whole_file_comes_with_a_zero_after_it),
        cmocka_unit_test(a_file_above_the_limit_is_refused),
        cmocka_unit_test(what_is_not_a_regular_file_is_refused_without_hanging),
        cmocka_unit_test(replacing_leaves_the_new_content_and_no_temporary_file),
        cmocka_unit_test(a_failed_replace_keeps_the_old_file),
        cmocka_unit_test(a_leftover_of_a_crash_does_not_open_a_secret_to_others),
        cmocka_unit_test(a_link_in_the_place_of_the_temporary_file_is_not_followed),
        cmocka_unit_test(a_folder_is_created_with_its_parents_and_may_exist),
        cmocka_unit_test(a_folder_where_a_file_stands_is_refused),
        cmocka_unit_test(the_folder_of_a_path_is_what_stands_before_the_last_slash),
        cmocka_unit_test(a_relative_path_is_made_absolute_and_keeps_its_links),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
