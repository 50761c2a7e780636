/* SPDX-License-Identifier: Apache-2.0 */
/* virtqueue_test.c - rings as drivers fill them, and as hostile drivers do. */
#include <string.h>

#include "base/unit_test.h"
#include "vmm/devices/virtio/virtqueue.h"
#include "vmm/devices/virtio/virtqueue_driver_fake.h"

#define RAM_BYTES (4 * MIB)
#define QUEUE_AT  gpa(0x10000)
#define DATA_AT   0x100000u
#define SIZE      8

struct bench {
    struct guest_memory *memory;
    struct virtqueue queue;
    struct virtqueue_driver_fake driver;
};

static void bench_init(struct bench *bench)
{
    ASSERT_OK(guest_memory_create(RAM_BYTES, RAM_BYTES, &bench->memory));
    virtqueue_init(&bench->queue, bench->memory, 256);
    virtqueue_driver_fake_init(&bench->driver, bench->memory, QUEUE_AT, SIZE);
    virtqueue_driver_fake_attach(&bench->driver, &bench->queue);
}

static void bench_finish(struct bench *bench)
{
    guest_memory_destroy(bench->memory);
}

static struct driver_buffer readable(uint64_t offset, uint32_t len)
{
    return (struct driver_buffer){gpa(DATA_AT + offset), len, VIRTQUEUE_READABLE};
}

static struct driver_buffer writable(uint64_t offset, uint32_t len)
{
    return (struct driver_buffer){gpa(DATA_AT + offset), len, VIRTQUEUE_WRITABLE};
}

static void assert_broken(struct bench *bench)
{
    struct virtqueue_chain chain;

    assert_int_equal(virtqueue_pop(&bench->queue, &chain), VIRTQUEUE_BROKEN);
    assert_int_equal(virtqueue_pop(&bench->queue, &chain), VIRTQUEUE_BROKEN);
    assert_false(virtqueue_arm(&bench->queue));
}

TEST(a_chain_is_popped_with_its_parts)
{
    struct bench bench;
    struct virtqueue_chain chain;
    bench_init(&bench);
    assert_int_equal(virtqueue_pop(&bench.queue, &chain), VIRTQUEUE_EMPTY);
    const struct driver_buffer buffers[] = {readable(0, 16), readable(0x1000, 100),
                                            writable(0x2000, 512), writable(0x3000, 1)};

    uint16_t head = virtqueue_driver_fake_add(&bench.driver, buffers, 4);

    assert_int_equal(virtqueue_pop(&bench.queue, &chain), VIRTQUEUE_CHAIN);
    assert_int_equal(chain.head, head);
    assert_int_equal(chain.readable_count, 2);
    assert_int_equal(chain.writable_count, 2);
    assert_int_equal(chain.readable_bytes, 116);
    assert_int_equal(chain.writable_bytes, 513);
    assert_int_equal(virtqueue_pop(&bench.queue, &chain), VIRTQUEUE_EMPTY);
    bench_finish(&bench);
}

TEST(used_entries_appear_when_they_are_published)
{
    struct bench bench;
    struct virtqueue_chain chain;
    uint32_t head = 0;
    uint32_t written = 0;
    bench_init(&bench);
    const struct driver_buffer buffer = writable(0, 64);
    (void)virtqueue_driver_fake_add(&bench.driver, &buffer, 1);
    assert_int_equal(virtqueue_pop(&bench.queue, &chain), VIRTQUEUE_CHAIN);

    virtqueue_fill(&bench.queue, chain.head, 33);
    assert_false(virtqueue_driver_fake_used(&bench.driver, &head, &written));
    assert_true(virtqueue_publish(&bench.queue));

    assert_true(virtqueue_driver_fake_used(&bench.driver, &head, &written));
    assert_int_equal(head, chain.head);
    assert_int_equal(written, 33);
    bench_finish(&bench);
}

TEST(rings_go_round_for_more_than_65536_requests)
{
    struct bench bench;
    struct virtqueue_chain chain;
    uint32_t head = 0;
    uint32_t written = 0;
    bench_init(&bench);

    for (uint32_t i = 0; i < 70000; i++) {
        const struct driver_buffer buffers[] = {readable(0, 4), writable(8, 4)};
        uint16_t added = virtqueue_driver_fake_add(&bench.driver, buffers, 2);
        assert_int_equal(virtqueue_pop(&bench.queue, &chain), VIRTQUEUE_CHAIN);
        virtqueue_fill(&bench.queue, chain.head, i);
        (void)virtqueue_publish(&bench.queue);
        assert_true(virtqueue_driver_fake_used(&bench.driver, &head, &written));
        assert_int_equal(head, added);
        assert_int_equal(written, i);
    }
    bench_finish(&bench);
}

/* More often than the ring has slots, so that what is put back lies across its end, too. */
TEST(requests_that_are_put_back_are_popped_again)
{
    struct bench bench;
    struct virtqueue_chain chain;
    const struct driver_buffer buffer = writable(0, 64);
    uint32_t head = 0, written = 0;
    bench_init(&bench);

    for (unsigned round = 0; round < 2u * SIZE; round++) {
        uint16_t heads[3];
        for (unsigned i = 0; i < 3; i++)
            heads[i] = virtqueue_driver_fake_add(&bench.driver, &buffer, 1);
        for (unsigned i = 0; i < 3; i++)
            assert_int_equal(virtqueue_pop(&bench.queue, &chain), VIRTQUEUE_CHAIN);
        virtqueue_fill(&bench.queue, heads[1], 1);
        virtqueue_put_back(&bench.queue, (const uint16_t[]){heads[2], heads[0]}, 2);
        assert_int_equal(bench.queue.next_available, bench.queue.next_used);

        assert_int_equal(virtqueue_pop(&bench.queue, &chain), VIRTQUEUE_CHAIN);
        assert_int_equal(chain.head, heads[2]);
        virtqueue_fill(&bench.queue, chain.head, 2);
        assert_int_equal(virtqueue_pop(&bench.queue, &chain), VIRTQUEUE_CHAIN);
        assert_int_equal(chain.head, heads[0]);
        virtqueue_fill(&bench.queue, chain.head, 3);
        assert_int_equal(virtqueue_pop(&bench.queue, &chain), VIRTQUEUE_EMPTY);
        (void)virtqueue_publish(&bench.queue);
        for (unsigned i = 0; i < 3; i++)
            assert_true(virtqueue_driver_fake_used(&bench.driver, &head, &written));
        assert_int_equal(head, heads[0]);
    }
    bench_finish(&bench);
}

TEST(an_indirect_table_is_followed)
{
    struct bench bench;
    struct virtqueue_chain chain;
    bench_init(&bench);
    bench.queue.has_indirect = true;
    gpa_t table = gpa(DATA_AT + 0x8000);
    virtqueue_driver_fake_describe(&bench.driver, table, 0, readable(0, 10), 2);
    virtqueue_driver_fake_describe(&bench.driver, table, 2, writable(64, 20), -1);
    struct driver_buffer outer = {table, 48, VIRTQUEUE_READABLE};
    virtqueue_driver_fake_describe(&bench.driver, QUEUE_AT, 3, outer, -1);
    assert_true(guest_store_release16(bench.memory, gpa(QUEUE_AT.value + 3 * 16 + 12), 0x4));

    virtqueue_driver_fake_offer(&bench.driver, 3);

    assert_int_equal(virtqueue_pop(&bench.queue, &chain), VIRTQUEUE_CHAIN);
    assert_int_equal(chain.head, 3);
    assert_int_equal(chain.readable_bytes, 10);
    assert_int_equal(chain.writable_bytes, 20);
    bench_finish(&bench);
}

TEST(an_indirect_table_inside_another_breaks_the_queue)
{
    struct bench bench;
    bench_init(&bench);
    bench.queue.has_indirect = true;
    gpa_t table = gpa(DATA_AT + 0x8000);
    struct driver_buffer outer = {table, 16, VIRTQUEUE_READABLE};
    virtqueue_driver_fake_describe(&bench.driver, QUEUE_AT, 0, outer, -1);
    virtqueue_driver_fake_describe(&bench.driver, table, 0, outer, -1);
    assert_true(guest_store_release16(bench.memory, gpa(QUEUE_AT.value + 12), 0x4));
    assert_true(guest_store_release16(bench.memory, gpa(table.value + 12), 0x4));

    virtqueue_driver_fake_offer(&bench.driver, 0);

    assert_broken(&bench);
    bench_finish(&bench);
}

TEST(an_indirect_table_that_was_not_negotiated_breaks_the_queue)
{
    struct bench bench;
    bench_init(&bench);
    struct driver_buffer outer = {gpa(DATA_AT), 16, VIRTQUEUE_READABLE};
    virtqueue_driver_fake_describe(&bench.driver, QUEUE_AT, 0, outer, -1);
    assert_true(guest_store_release16(bench.memory, gpa(QUEUE_AT.value + 12), 0x4));

    virtqueue_driver_fake_offer(&bench.driver, 0);

    assert_broken(&bench);
    bench_finish(&bench);
}

TEST(a_chain_that_loops_breaks_the_queue)
{
    struct bench bench;
    bench_init(&bench);
    virtqueue_driver_fake_describe(&bench.driver, QUEUE_AT, 0, readable(0, 1), 1);
    virtqueue_driver_fake_describe(&bench.driver, QUEUE_AT, 1, readable(0, 1), 0);

    virtqueue_driver_fake_offer(&bench.driver, 0);

    assert_broken(&bench);
    bench_finish(&bench);
}

TEST(buffers_outside_ram_break_the_queue)
{
    const struct driver_buffer bad[] = {
        {gpa(RAM_BYTES - 4), 5, VIRTQUEUE_READABLE},
        {gpa(UINT64_MAX - 3), 8, VIRTQUEUE_WRITABLE},
        {gpa(0xd0000000), 16, VIRTQUEUE_WRITABLE},
        {gpa(DATA_AT), 0, VIRTQUEUE_READABLE},
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct bench bench;
        bench_init(&bench);
        (void)virtqueue_driver_fake_add(&bench.driver, &bad[i], 1);
        assert_broken(&bench);
        bench_finish(&bench);
    }
}

TEST(a_readable_buffer_after_a_writable_one_breaks_the_queue)
{
    struct bench bench;
    bench_init(&bench);
    const struct driver_buffer buffers[] = {writable(0, 4), readable(8, 4)};

    (void)virtqueue_driver_fake_add(&bench.driver, buffers, 2);

    assert_broken(&bench);
    bench_finish(&bench);
}

TEST(heads_links_and_counts_out_of_range_break_the_queue)
{
    struct bench bench;

    bench_init(&bench);
    virtqueue_driver_fake_offer(&bench.driver, SIZE);
    assert_broken(&bench);
    bench_finish(&bench);

    bench_init(&bench);
    virtqueue_driver_fake_describe(&bench.driver, QUEUE_AT, 0, readable(0, 1), 0x7fff);
    virtqueue_driver_fake_offer(&bench.driver, 0);
    assert_broken(&bench);
    bench_finish(&bench);

    bench_init(&bench);
    assert_true(
        guest_store_release16(bench.memory, gpa(bench.driver.available.value + 2), SIZE + 1));
    assert_broken(&bench);
    bench_finish(&bench);
}

TEST(a_queue_outside_ram_or_misaligned_is_not_enabled)
{
    struct bench bench;
    bench_init(&bench);

    bench.queue.used = gpa(RAM_BYTES - 16);
    assert_false(virtqueue_enable(&bench.queue));
    bench.queue.used = gpa(bench.driver.used.value + 2);
    assert_false(virtqueue_enable(&bench.queue));
    bench.queue.used = bench.driver.used;
    bench.queue.descriptors = gpa(8);
    assert_false(virtqueue_enable(&bench.queue));

    bench_finish(&bench);
}

TEST(event_indexes_thin_out_interrupts)
{
    struct bench bench;
    struct virtqueue_chain chain;
    bool interrupts[4];
    bench_init(&bench);
    bench.queue.has_event_index = true;
    virtqueue_driver_fake_want(&bench.driver, 2);

    for (int i = 0; i < 4; i++) {
        const struct driver_buffer buffer = writable(0, 4);
        (void)virtqueue_driver_fake_add(&bench.driver, &buffer, 1);
        assert_int_equal(virtqueue_pop(&bench.queue, &chain), VIRTQUEUE_CHAIN);
        virtqueue_fill(&bench.queue, chain.head, 4);
        interrupts[i] = virtqueue_publish(&bench.queue);
    }

    assert_true(interrupts[0]); /* nothing is known yet about what was signalled */
    assert_false(interrupts[1]);
    assert_true(interrupts[2]);
    assert_false(interrupts[3]);
    bench_finish(&bench);
}

TEST(arming_asks_for_the_next_request_and_sees_one_that_is_there)
{
    struct bench bench;
    uint16_t event = 0xffff;
    bench_init(&bench);
    bench.queue.has_event_index = true;
    assert_false(virtqueue_arm(&bench.queue));

    const struct driver_buffer buffer = writable(0, 4);
    (void)virtqueue_driver_fake_add(&bench.driver, &buffer, 1);

    assert_true(virtqueue_arm(&bench.queue));
    assert_true(
        guest_load_acquire16(bench.memory, gpa(bench.driver.used.value + 4 + SIZE * 8), &event));
    assert_int_equal(event, 0);
    bench_finish(&bench);
}

TEST(without_event_indexes_flags_are_used)
{
    struct bench bench;
    struct virtqueue_chain chain;
    uint16_t flags = 0;
    bench_init(&bench);
    assert_true(guest_store_release16(bench.memory, bench.driver.available, 1));
    const struct driver_buffer buffer = writable(0, 4);
    (void)virtqueue_driver_fake_add(&bench.driver, &buffer, 1);
    assert_int_equal(virtqueue_pop(&bench.queue, &chain), VIRTQUEUE_CHAIN);

    virtqueue_fill(&bench.queue, chain.head, 4);
    assert_false(virtqueue_publish(&bench.queue));
    virtqueue_disarm(&bench.queue);

    assert_true(guest_load_acquire16(bench.memory, bench.driver.used, &flags));
    assert_int_equal(flags, 1);
    (void)virtqueue_arm(&bench.queue);
    assert_true(guest_load_acquire16(bench.memory, bench.driver.used, &flags));
    assert_int_equal(flags, 0);
    bench_finish(&bench);
}

TEST(chain_bytes_are_copied_across_pieces)
{
    struct bench bench;
    struct virtqueue_chain chain;
    char text[8] = {0};
    struct iovec iovs[4];
    bench_init(&bench);
    assert_true(guest_write(bench.memory, gpa(DATA_AT), "abc", 3));
    assert_true(guest_write(bench.memory, gpa(DATA_AT + 0x100), "defgh", 5));
    const struct driver_buffer buffers[] = {readable(0, 3), readable(0x100, 5), writable(0x200, 2),
                                            writable(0x300, 4)};
    (void)virtqueue_driver_fake_add(&bench.driver, buffers, 4);
    assert_int_equal(virtqueue_pop(&bench.queue, &chain), VIRTQUEUE_CHAIN);

    assert_true(virtqueue_chain_read(&bench.queue, &chain, 1, text, 5));
    assert_string_equal(text, "bcdef");
    assert_false(virtqueue_chain_read(&bench.queue, &chain, 4, text, 5));
    assert_true(virtqueue_chain_write(&bench.queue, &chain, 1, "WXY", 3));
    assert_false(virtqueue_chain_write(&bench.queue, &chain, 4, "WXY", 3));

    assert_true(guest_read(bench.memory, gpa(DATA_AT + 0x300), text, 2));
    assert_memory_equal(text, "XY", 2);
    struct virtqueue_span span = {.part = VIRTQUEUE_WRITABLE, .offset = 1, .len = 5};
    assert_int_equal(virtqueue_chain_span(&bench.queue, &chain, span, iovs, 4), 2);
    assert_int_equal(iovs[0].iov_len, 1);
    assert_int_equal(iovs[1].iov_len, 4);
    assert_int_equal(virtqueue_chain_span(&bench.queue, &chain, span, iovs, 1), 0);
    span.len = 6;
    assert_int_equal(virtqueue_chain_span(&bench.queue, &chain, span, iovs, 4), 0);
    bench_finish(&bench);
}

TEST(a_queue_goes_on_from_its_saved_state)
{
    struct bench bench;
    struct virtqueue restored;
    struct virtqueue_chain chain;
    Ferry__VirtqueueState state = FERRY__VIRTQUEUE_STATE__INIT;
    bench_init(&bench);
    const struct driver_buffer buffer = writable(0, 4);
    (void)virtqueue_driver_fake_add(&bench.driver, &buffer, 1);
    assert_int_equal(virtqueue_pop(&bench.queue, &chain), VIRTQUEUE_CHAIN);
    virtqueue_fill(&bench.queue, chain.head, 4);
    (void)virtqueue_publish(&bench.queue);
    uint16_t waiting = virtqueue_driver_fake_add(&bench.driver, &buffer, 1);

    virtqueue_save(&bench.queue, &state);
    virtqueue_init(&restored, bench.memory, 256);
    ASSERT_OK(virtqueue_validate(&restored, &state));
    virtqueue_apply(&restored, &state);

    assert_int_equal(virtqueue_pop(&restored, &chain), VIRTQUEUE_CHAIN);
    assert_int_equal(chain.head, waiting);
    assert_int_equal(virtqueue_pop(&restored, &chain), VIRTQUEUE_EMPTY);
    bench_finish(&bench);
}

TEST(hostile_states_are_refused)
{
    struct bench bench;
    Ferry__VirtqueueState good = FERRY__VIRTQUEUE_STATE__INIT;
    bench_init(&bench);
    virtqueue_save(&bench.queue, &good);
    ASSERT_OK(virtqueue_validate(&bench.queue, &good));
    Ferry__VirtqueueState bad[] = {good, good, good, good, good, good, good, good};

    bad[0].size = 0;
    bad[1].size = 6;
    bad[2].size = 512;
    bad[3].descriptors = RAM_BYTES;
    bad[4].available = UINT64_MAX - 1;
    bad[5].used += 2;
    bad[6].next_available = 1;
    bad[7].next_available = bad[7].next_used = 0x10000;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_fails(virtqueue_validate(&bench.queue, &bad[i]), ERR_INVALID);
    bench_finish(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_chain_is_popped_with_its_parts),
        cmocka_unit_test(used_entries_appear_when_they_are_published),
        cmocka_unit_test(rings_go_round_for_more_than_65536_requests),
        cmocka_unit_test(requests_that_are_put_back_are_popped_again),
        cmocka_unit_test(an_indirect_table_is_followed),
        cmocka_unit_test(an_indirect_table_inside_another_breaks_the_queue),
        cmocka_unit_test(an_indirect_table_that_was_not_negotiated_breaks_the_queue),
        cmocka_unit_test(a_chain_that_loops_breaks_the_queue),
        cmocka_unit_test(buffers_outside_ram_break_the_queue),
        cmocka_unit_test(a_readable_buffer_after_a_writable_one_breaks_the_queue),
        cmocka_unit_test(heads_links_and_counts_out_of_range_break_the_queue),
        cmocka_unit_test(a_queue_outside_ram_or_misaligned_is_not_enabled),
        cmocka_unit_test(event_indexes_thin_out_interrupts),
        cmocka_unit_test(arming_asks_for_the_next_request_and_sees_one_that_is_there),
        cmocka_unit_test(without_event_indexes_flags_are_used),
        cmocka_unit_test(chain_bytes_are_copied_across_pieces),
        cmocka_unit_test(a_queue_goes_on_from_its_saved_state),
        cmocka_unit_test(hostile_states_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
