/* SPDX-License-Identifier: Apache-2.0 */
/* virtio_blk_limit_test.c - what a disk may do, as its queues ask. */
#include "base/clock.h"
#include "base/unit_test.h"
#include "vmm/devices/virtio/virtio_blk_limit.h"

/* Is a request of so many bytes begun? */
static bool begin(struct virtio_blk_limit *limit, enum io_operation operation, uint64_t len)
{
    const struct io_request io = {.operation = operation, .len = len};

    lock_acquire(&limit->lock);
    bool is_open = virtio_blk_limit_is_open_locked(limit);
    if (is_open)
        virtio_blk_limit_use_locked(limit, &io);
    lock_release(&limit->lock);
    return is_open;
}

TEST(a_disk_without_limits_has_nothing_to_wait_for)
{
    struct virtio_blk_limit limit;
    virtio_blk_limit_init(&limit, (struct virtio_blk_rates){0, 0});

    assert_false(virtio_blk_limit_is_any(&limit));
    assert_int_equal(virtio_blk_limit_begin_ns(&limit), 0);

    virtio_blk_limit_finish(&limit);
}

TEST(the_narrower_of_two_limits_decides)
{
    struct virtio_blk_limit limit;
    clock_fake_start(100 * NS_PER_S, 0);
    virtio_blk_limit_init(&limit, (struct virtio_blk_rates){10, 1000});

    assert_true(virtio_blk_limit_is_any(&limit));
    assert_true(begin(&limit, IO_WRITE, 2100)); /* two seconds' worth, after a burst of a tenth */
    assert_false(begin(&limit, IO_FLUSH, 0));
    assert_int_equal(virtio_blk_limit_begin_ns(&limit), 102 * NS_PER_S);
    clock_fake_advance(2 * NS_PER_S);
    assert_true(begin(&limit, IO_DISCARD, 1 << 20)); /* no bytes go anywhere */
    assert_true(begin(&limit, IO_FLUSH, 0));
    assert_false(begin(&limit, IO_FLUSH, 0));

    clock_fake_stop();
    virtio_blk_limit_finish(&limit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_disk_without_limits_has_nothing_to_wait_for),
        cmocka_unit_test(the_narrower_of_two_limits_decides),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
