/* SPDX-License-Identifier: Apache-2.0 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked_math.h"
#include "base/lock.h"
#include "base/thread.h"
#include "base/unit_test.h"
#include "storage/block_memory.h"
#include "storage/layer_stack.h"
#include "storage/qcow/qcow_create.h"
#include "storage/qcow/qcow_image.h"
#include "storage/qcow/qcow_presence.h"
#include "storage/testing/host_file_fake.h"
#include "storage/testing/planned_request.h"

#define DISK_BYTES (40 * MIB) /* more than a leaf, and the second one is not full */

/* What a chain is to show, and the writable image that a test writes before it pushes it. */
static uint8_t *model;
static unsigned planned_count;

/* An overlay in memory. It says that it has a backing file, which is the stack's matter. */
static struct block *make_qcow(uint32_t cluster_bits, uint64_t virtual_bytes)
{
    struct qcow_create_options options = {.virtual_bytes = virtual_bytes,
                                          .version = 3,
                                          .cluster_bits = cluster_bits,
                                          .backing_name = "below",
                                          .backing_format = "raw"};
    struct host_file *file = NULL;
    struct block *block = NULL;

    ASSERT_OK(host_file_fake_create(NULL, 0, &file));
    ASSERT_OK(qcow_create(file, &options));
    ASSERT_OK(qcow_image_open(file, false, &block));
    return block;
}

static void push(struct layer_stack *stack, struct block *block, bool is_qcow)
{
    struct image_layer layer = {.block = block, .fd = -1, .is_qcow = is_qcow};

    if (is_qcow)
        ASSERT_OK(qcow_image_seal(block));
    ASSERT_OK(layer_stack_push(stack, &layer));
}

static void change(struct block *block, uint64_t offset, size_t len, int value)
{
    uint8_t *data = malloc(len);
    struct iovec iov = {data, len};

    assert_non_null(data);
    memset(data, value, len);
    if (value == 0)
        ASSERT_OK(block_write_zeroes(block, offset, len, true));
    else
        ASSERT_OK(block_write(block, &iov, 1, offset));
    memset(model + offset, value, len);
    free(data);
}

/* A sector within a cluster of the layer copies the rest from below, which a lone image does not
 * have; so whole clusters. */
static void change_at_random(struct block *block, uint32_t cluster_bits, uint64_t end)
{
    uint64_t cluster = (uint64_t)1 << cluster_bits, clusters = end >> cluster_bits;
    uint64_t first = (uint64_t)rand() % clusters;
    uint64_t most = MAX((uint64_t)1, MIN(clusters - first, 300 * KIB >> cluster_bits));

    change(block, first * cluster, (1 + (uint64_t)rand() % most) * cluster,
           rand() % 4 == 0 ? 0 : 1 + rand() % 255);
}

static void expect_model(struct layer_stack *stack, uint64_t offset, size_t len)
{
    uint8_t *data = malloc(len);
    struct iovec iovs[2] = {{data, len / 3}, {data + len / 3, len - len / 3}};

    assert_non_null(data);
    ASSERT_OK(block_read(layer_stack_block(stack), iovs, 2, offset));
    if (memcmp(data, model + offset, len) != 0)
        for (size_t i = 0; i < len; i++)
            if (data[i] != model[offset + i])
                fail_msg("byte %llu is %u instead of %u", (unsigned long long)(offset + i), data[i],
                         model[offset + i]);
    /* What was asked for once can be planned, unless it is scattered or partial. */
    memset(data, 1, len);
    bool is_planned = false;
    ASSERT_OK(planned_read(layer_stack_block(stack), data, len, offset, &is_planned));
    assert_memory_equal(data, model + offset, len);
    planned_count += is_planned;
    free(data);
}

static void expect_all(struct layer_stack *stack)
{
    uint64_t end = layer_stack_block(stack)->virtual_bytes;
    uint64_t sectors = MAX(end / 512, (uint64_t)1);

    for (uint64_t at = 0; at < end; at += MIB)
        expect_model(stack, at, MIN(MIB, end - at));
    planned_count = 0;
    for (int i = 0; i < 300; i++) {
        uint64_t offset = (uint64_t)rand() % sectors * 512;
        expect_model(stack, offset, MIN(512 * (1 + (uint64_t)rand() % 300), end - offset));
    }
}

static struct block *make_base(void)
{
    struct block *base = NULL;

    ASSERT_OK(block_memory_create(DISK_BYTES, &base));
    for (uint64_t at = 0; at < DISK_BYTES; at += 512)
        memset(block_memory_bytes(base) + at, (int)(at / 512 % 251 + 1), 512);
    memcpy(model, block_memory_bytes(base), DISK_BYTES);
    return base;
}

TEST(the_newest_layer_wins_whatever_the_cluster_sizes)
{
    static const uint32_t cluster_bits[] = {16, 9, 17, 12, 21, 10, 16, 11, 16, 16};
    struct layer_stack *stack = NULL;

    srand(11);
    ASSERT_OK(layer_stack_create(&stack));
    push(stack, make_base(), false);
    for (size_t i = 0; i < ARRAY_COUNT(cluster_bits); i++) {
        struct block *block = make_qcow(cluster_bits[i], DISK_BYTES);
        for (int step = 0; step < 60; step++)
            change_at_random(block, cluster_bits[i], DISK_BYTES);
        push(stack, block, true);
        /* Every other time the index has seen some of the layers before the next one comes. */
        if (i % 2 == 0)
            expect_all(stack);
    }

    expect_all(stack);
    assert_true(planned_count > 0);
    assert_int_equal(layer_stack_depth(stack), ARRAY_COUNT(cluster_bits) + 1);
    ASSERT_OK(block_close(layer_stack_block(stack)));
}

TEST(without_a_base_there_are_zeros)
{
    struct layer_stack *stack = NULL;

    memset(model, 0, DISK_BYTES);
    ASSERT_OK(layer_stack_create(&stack));
    struct block *block = make_qcow(16, DISK_BYTES);
    change(block, 64 * KIB, 64 * KIB, 7);
    push(stack, block, true);

    expect_all(stack);
    ASSERT_OK(block_close(layer_stack_block(stack)));
}

TEST(behind_the_end_of_a_shorter_layer_lower_ones_do_not_show)
{
    static const uint64_t sizes[] = {MIB + 512, 40 * MIB - 1536, 33 * MIB};
    struct layer_stack *stack = NULL;

    srand(3);
    ASSERT_OK(layer_stack_create(&stack));
    push(stack, make_base(), false);
    for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
        struct block *small = make_qcow(12, sizes[i]);
        change_at_random(small, 12, sizes[i] & ~(uint64_t)4095);
        push(stack, small, true);
        memset(model + sizes[i], 0, DISK_BYTES - sizes[i]);
        expect_all(stack);
        struct block *full = make_qcow(16, DISK_BYTES);
        change_at_random(full, 16, DISK_BYTES);
        push(stack, full, true);
        expect_all(stack);
    }

    ASSERT_OK(block_close(layer_stack_block(stack)));
}

/* The union of layers [first, last], read through a stack of them alone, with what they hold. */
static struct block *merged(struct block **blocks, unsigned first, unsigned last)
{
    struct block *block = make_qcow(16, DISK_BYTES);

    for (unsigned i = first; i <= last; i++)
        for (uint64_t at = 0; at < DISK_BYTES; at += 64 * KIB) {
            uint8_t data[64 * KIB];
            struct iovec iov = {data, sizeof(data)};
            enum qcow_presence presence;
            uint64_t bytes;
            ASSERT_OK(qcow_image_presence(blocks[i], at, sizeof(data), &presence, &bytes));
            assert_int_equal(bytes, sizeof(data));
            if (presence == QCOW_PRESENCE_ZERO)
                ASSERT_OK(block_write_zeroes(block, at, sizeof(data), true));
            if (presence != QCOW_PRESENCE_DATA)
                continue;
            ASSERT_OK(block_read(blocks[i], &iov, 1, at));
            ASSERT_OK(block_write(block, &iov, 1, at));
        }
    ASSERT_OK(qcow_image_seal(block));
    return block;
}

TEST(one_layer_takes_the_place_of_several)
{
    struct layer_stack *stack = NULL;
    struct block *blocks[12] = {NULL};

    srand(5);
    ASSERT_OK(layer_stack_create(&stack));
    push(stack, make_base(), false);
    for (unsigned i = 1; i < ARRAY_COUNT(blocks); i++) {
        blocks[i] = make_qcow(16, DISK_BYTES);
        for (int step = 0; step < 20; step++)
            change_at_random(blocks[i], 16, DISK_BYTES);
        push(stack, blocks[i], true);
        /* The first leaf has merged some of those that are replaced, the second none. */
        if (i == 5)
            expect_model(stack, 0, MIB);
    }
    struct image_layer first = {.block = merged(blocks, 3, 8), .fd = -1, .is_qcow = true};
    ASSERT_OK(layer_stack_replace(stack, 3, 8, &first));
    assert_int_equal(layer_stack_depth(stack), 7);
    expect_all(stack);

    /* Again, over the one that took their place. */
    struct block *left[3] = {blocks[2], first.block, blocks[9]};
    struct image_layer second = {.block = merged(left, 0, 2), .fd = -1, .is_qcow = true};
    ASSERT_OK(layer_stack_replace(stack, 2, 4, &second));
    assert_int_equal(layer_stack_depth(stack), 5);
    assert_ptr_equal(layer_stack_layer(stack, 2)->block, second.block);
    assert_ptr_equal(layer_stack_layer(stack, 3)->block, blocks[10]);
    expect_all(stack);
    struct block *newest = make_qcow(16, DISK_BYTES);
    change_at_random(newest, 16, DISK_BYTES);
    push(stack, newest, true);
    expect_all(stack);
    ASSERT_OK(block_close(layer_stack_block(stack)));
}

TEST(ids_may_run_out)
{
    struct layer_stack *stack = NULL;
    struct block *block = make_qcow(12, DISK_BYTES);

    ASSERT_OK(layer_stack_create(&stack));
    push(stack, make_base(), false);
    change(block, 8192, 4096, 1);
    push(stack, block, true);
    push(stack, make_qcow(12, DISK_BYTES), true);
    for (unsigned i = 0; i < 17000; i++) {
        /* The union of two empty layers is an empty one. */
        struct image_layer one = {.block = make_qcow(12, DISK_BYTES), .fd = -1, .is_qcow = true};
        push(stack, make_qcow(12, DISK_BYTES), true);
        if (i % 500 == 0)
            expect_model(stack, 0, 64 * KIB);
        ASSERT_OK(layer_stack_replace(stack, 2, 3, &one));
    }

    expect_all(stack);
    ASSERT_OK(block_close(layer_stack_block(stack)));
}

struct reader {
    struct layer_stack *stack;
    atomic_bool *has_ended;
    unsigned seed;
    uint64_t reads;
};

static void read_on(void *argument)
{
    struct reader *reader = argument;
    uint8_t data[8192];

    while (!atomic_load(reader->has_ended)) {
        uint64_t offset = (uint64_t)rand_r(&reader->seed) % (DISK_BYTES / 512 - 16) * 512;
        struct iovec iov = {data, sizeof(data)};
        ASSERT_OK(block_read(layer_stack_block(reader->stack), &iov, 1, offset));
        assert_memory_equal(data, model + offset, sizeof(data));
        reader->reads++;
    }
}

TEST(layers_are_replaced_under_reads)
{
    struct layer_stack *stack = NULL;
    struct block *blocks[20] = {NULL};
    struct thread *threads[2];
    struct reader readers[2];
    atomic_bool has_ended = false;

    srand(8);
    ASSERT_OK(layer_stack_create(&stack));
    push(stack, make_base(), false);
    for (unsigned i = 1; i < ARRAY_COUNT(blocks); i++) {
        blocks[i] = make_qcow(16, DISK_BYTES);
        for (int step = 0; step < 20; step++)
            change_at_random(blocks[i], 16, DISK_BYTES);
        push(stack, blocks[i], true);
    }
    for (unsigned i = 0; i < 2; i++) {
        readers[i] = (struct reader){.stack = stack, .has_ended = &has_ended, .seed = i + 1};
        ASSERT_OK(thread_create(ROLE_TEST, i, read_on, &readers[i], &threads[i]));
    }
    for (unsigned i = 1; i + 3 < ARRAY_COUNT(blocks); i += 3) {
        struct image_layer one = {.block = merged(blocks, i, i + 2), .fd = -1, .is_qcow = true};
        unsigned place = 1 + i / 3;
        ASSERT_OK(layer_stack_replace(stack, place, place + 2, &one));
    }
    atomic_store(&has_ended, true);
    for (unsigned i = 0; i < 2; i++)
        thread_join(threads[i]);

    assert_true(readers[0].reads > 0 && readers[1].reads > 0);
    expect_all(stack);
    ASSERT_OK(block_close(layer_stack_block(stack)));
}

TEST(a_layer_that_was_not_sealed_after_all_comes_off)
{
    struct layer_stack *stack = NULL;

    ASSERT_OK(layer_stack_create(&stack));
    push(stack, make_base(), false);
    struct block *block = make_qcow(16, DISK_BYTES);
    struct image_layer layer = {.block = block, .fd = -1, .is_qcow = true};
    ASSERT_OK(layer_stack_push(stack, &layer));
    layer_stack_pop(stack);

    assert_int_equal(layer_stack_depth(stack), 1);
    expect_all(stack);
    ASSERT_OK(block_close(block));
    ASSERT_OK(block_close(layer_stack_block(stack)));
}

TEST(nothing_is_written_through_it)
{
    struct layer_stack *stack = NULL;
    uint8_t data[512] = {0};
    struct iovec iov = {data, sizeof(data)};

    ASSERT_OK(layer_stack_create(&stack));
    push(stack, make_base(), false);
    struct block *block = layer_stack_block(stack);

    assert_fails(block_write(block, &iov, 1, 0), ERR_STATE);
    assert_fails(block_write_zeroes(block, 0, 512, false), ERR_STATE);
    assert_fails(block_discard(block, 0, 512), ERR_STATE);
    assert_fails(block_read(block, &iov, 1, DISK_BYTES), ERR_INVALID);
    ASSERT_OK(block_flush(block));
    ASSERT_OK(block_close(block));
}

TEST(a_failing_layer_fails_the_read)
{
    struct layer_stack *stack = NULL;
    struct block *base = make_base();
    uint8_t data[512] = {0};
    struct iovec iov = {data, sizeof(data)};

    ASSERT_OK(layer_stack_create(&stack));
    push(stack, base, false);
    block_memory_set_failing(base, true);

    assert_fails(block_read(layer_stack_block(stack), &iov, 1, 0), ERR_IO);
    block_memory_set_failing(base, false);
    expect_model(stack, 0, 512);
    ASSERT_OK(block_close(layer_stack_block(stack)));
}

/* A file whose reads stand still while the gate is closed. */
struct gated_file {
    struct host_file base;
    struct host_file *next; /* owned */
    struct lock lock;
    struct lock_condition changed;
    bool is_closed GUARDED_BY(&lock);
    unsigned waiting GUARDED_BY(&lock);
};

static void set_gate(struct gated_file *gated, bool is_closed)
{
    lock_acquire(&gated->lock);
    gated->is_closed = is_closed;
    lock_condition_broadcast(&gated->changed);
    lock_release(&gated->lock);
}

static void await_reader(struct gated_file *gated)
{
    lock_acquire(&gated->lock);
    while (gated->waiting == 0)
        lock_condition_wait(&gated->changed, &gated->lock);
    lock_release(&gated->lock);
}

static struct err *gated_read(struct host_file *file, const struct io_vector *to, uint64_t offset)
{
    struct gated_file *self = CONTAINER_OF(file, struct gated_file, base);

    lock_acquire(&self->lock);
    self->waiting++;
    lock_condition_broadcast(&self->changed);
    while (self->is_closed)
        lock_condition_wait(&self->changed, &self->lock);
    self->waiting--;
    lock_release(&self->lock);
    return host_file_read(self->next, to, offset);
}

static struct err *gated_size(struct host_file *file, uint64_t *out_bytes)
{
    return host_file_size(CONTAINER_OF(file, struct gated_file, base)->next, out_bytes);
}

static void gated_destroy(struct host_file *file)
{
    host_file_destroy(CONTAINER_OF(file, struct gated_file, base)->next);
}

static const struct host_file_ops gated_ops = {
    .name = "gated", .read = gated_read, .size = gated_size, .destroy = gated_destroy};

/* A layer with data in both leaves, in the gated file. */
static struct block *make_gated(struct gated_file *gated)
{
    struct host_file *file = NULL;
    struct block *block = NULL;
    void *bytes = NULL;
    size_t len;

    ASSERT_OK(host_file_fake_create(NULL, 0, &file));
    host_file_fake_keep(file, &bytes, &len);
    ASSERT_OK(qcow_create(file, &(struct qcow_create_options){.virtual_bytes = DISK_BYTES,
                                                              .version = 3,
                                                              .cluster_bits = 16}));
    ASSERT_OK(qcow_image_open(file, false, &block));
    memset(model, 0, DISK_BYTES);
    change(block, MIB, 64 * KIB, 1);
    change(block, 36 * MIB, 64 * KIB, 2);
    ASSERT_OK(block_close(block));
    ASSERT_OK(host_file_fake_create(bytes, len, &gated->next));
    free(bytes);
    gated->base = (struct host_file){.ops = &gated_ops, .path = "gated"};
    ASSERT_OK(qcow_image_open(&gated->base, true, &block));
    return block;
}

static void read_second_leaf(void *argument)
{
    uint8_t data[512];
    struct iovec iov = {data, sizeof(data)};

    ASSERT_OK(block_read(argument, &iov, 1, 36 * MIB));
    assert_memory_equal(data, model + 36 * MIB, sizeof(data));
}

TEST(who_looks_into_layers_holds_up_nobody_else)
{
    struct gated_file gated = {.next = NULL};
    struct layer_stack *stack = NULL;
    struct thread *reader = NULL;

    lock_init(&gated.lock, LOCK_TEST);
    lock_condition_init(&gated.changed);
    ASSERT_OK(layer_stack_create(&stack));
    struct image_layer layer = {.block = make_gated(&gated), .fd = -1, .is_qcow = true};
    ASSERT_OK(layer_stack_push(stack, &layer));
    expect_model(stack, 0, 512);
    set_gate(&gated, true);
    ASSERT_OK(thread_create(ROLE_TEST, 0, read_second_leaf, layer_stack_block(stack), &reader));
    await_reader(&gated);
    (void)alarm(60);             /* it would wait for ever */
    expect_model(stack, 0, 512); /* zeros: nothing is read for it */
    (void)alarm(0);
    set_gate(&gated, false);
    thread_join(reader);
    expect_model(stack, 36 * MIB, 64 * KIB);
    ASSERT_OK(block_close(layer_stack_block(stack)));
    lock_condition_finish(&gated.changed);
    lock_finish(&gated.lock);
}

static int make_model(void **state)
{
    (void)state;
    model = malloc(DISK_BYTES);
    return model == NULL;
}

static int free_model(void **state)
{
    (void)state;
    free(model);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_newest_layer_wins_whatever_the_cluster_sizes),
        cmocka_unit_test(without_a_base_there_are_zeros),
        cmocka_unit_test(behind_the_end_of_a_shorter_layer_lower_ones_do_not_show),
        cmocka_unit_test(one_layer_takes_the_place_of_several),
        cmocka_unit_test(ids_may_run_out),
        cmocka_unit_test(layers_are_replaced_under_reads),
        cmocka_unit_test(a_layer_that_was_not_sealed_after_all_comes_off),
        cmocka_unit_test(nothing_is_written_through_it),
        cmocka_unit_test(a_failing_layer_fails_the_read),
        cmocka_unit_test(who_looks_into_layers_holds_up_nobody_else),
    };

    return cmocka_run_group_tests(tests, make_model, free_model);
}
