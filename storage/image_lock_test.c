/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/unit_test.h"
#include "storage/image_lock.h"

/* Two open file descriptions stand for two processes. */
struct pair {
    int first;
    int second;
};

static struct pair open_pair(void)
{
    char path[] = "/tmp/image_lock_test.XXXXXX";
    struct pair pair = {.first = mkstemp(path)};

    pair.second = open(path, O_RDWR | O_CLOEXEC);
    assert_true(pair.first >= 0 && pair.second >= 0);
    assert_int_equal(unlink(path), 0);
    return pair;
}

static void close_pair(struct pair pair)
{
    assert_int_equal(close(pair.first), 0);
    assert_int_equal(close(pair.second), 0);
}

TEST(a_written_image_is_refused_to_everybody_else)
{
    struct pair pair = open_pair();

    ASSERT_OK(image_lock_take(pair.first, "disk", IMAGE_LOCK_WRITER));

    assert_fails(image_lock_take(pair.second, "disk", IMAGE_LOCK_WRITER), ERR_DENIED);
    assert_fails(image_lock_take(pair.second, "disk", IMAGE_LOCK_READER), ERR_DENIED);
    close_pair(pair);
}

TEST(one_can_see_that_an_image_is_written)
{
    struct pair pair = open_pair();
    bool is_written = true;

    ASSERT_OK(image_lock_take(pair.first, "disk", IMAGE_LOCK_READER));
    ASSERT_OK(image_lock_is_written(pair.second, "disk", &is_written));
    assert_false(is_written);
    ASSERT_OK(image_lock_take(pair.first, "disk", IMAGE_LOCK_WRITER));
    ASSERT_OK(image_lock_is_written(pair.second, "disk", &is_written));
    assert_true(is_written);
    close_pair(pair);
}

TEST(one_can_see_that_an_image_is_used)
{
    struct pair pair = open_pair();
    bool is_held = true;

    ASSERT_OK(image_lock_is_held(pair.second, "disk", &is_held));
    assert_false(is_held);
    ASSERT_OK(image_lock_take(pair.first, "disk", IMAGE_LOCK_READER));
    ASSERT_OK(image_lock_is_held(pair.first, "disk", &is_held));
    assert_false(is_held); /* by another */
    ASSERT_OK(image_lock_is_held(pair.second, "disk", &is_held));
    assert_true(is_held);
    close_pair(pair);
}

TEST(readers_share_an_image_and_keep_writers_out)
{
    struct pair pair = open_pair();

    ASSERT_OK(image_lock_take(pair.first, "disk", IMAGE_LOCK_READER));

    ASSERT_OK(image_lock_take(pair.second, "disk", IMAGE_LOCK_READER));
    assert_fails(image_lock_take(pair.second, "disk", IMAGE_LOCK_WRITER), ERR_DENIED);
    close_pair(pair);
}

TEST(a_refused_lock_leaves_nothing_behind)
{
    struct pair pair = open_pair();

    ASSERT_OK(image_lock_take(pair.first, "disk", IMAGE_LOCK_READER));
    assert_fails(image_lock_take(pair.second, "disk", IMAGE_LOCK_WRITER), ERR_DENIED);
    ASSERT_OK(image_lock_lower(pair.first, "disk", IMAGE_LOCK_NONE));

    ASSERT_OK(image_lock_take(pair.first, "disk", IMAGE_LOCK_WRITER));
    close_pair(pair);
}

TEST(a_writer_becomes_a_reader_without_letting_a_writer_in)
{
    struct pair pair = open_pair();

    ASSERT_OK(image_lock_take(pair.first, "disk", IMAGE_LOCK_WRITER));
    ASSERT_OK(image_lock_lower(pair.first, "disk", IMAGE_LOCK_READER));

    assert_fails(image_lock_take(pair.second, "disk", IMAGE_LOCK_WRITER), ERR_DENIED);
    ASSERT_OK(image_lock_take(pair.second, "disk", IMAGE_LOCK_READER));
    close_pair(pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_written_image_is_refused_to_everybody_else),
        cmocka_unit_test(one_can_see_that_an_image_is_written),
        cmocka_unit_test(one_can_see_that_an_image_is_used),
        cmocka_unit_test(readers_share_an_image_and_keep_writers_out),
        cmocka_unit_test(a_refused_lock_leaves_nothing_behind),
        cmocka_unit_test(a_writer_becomes_a_reader_without_letting_a_writer_in),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
