/* SPDX-License-Identifier: Apache-2.0 */
/* io_engine_test.c - both engines, with the same tests. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/thread.h"
#include "base/unit_test.h"
#include "storage/block_memory.h"
#include "storage/host_file.h"
#include "storage/io_engine.h"
#include "storage/io_vector.h"
#include "storage/raw/raw_image.h"
#include "storage/testing/gated_block_fixture.h"

#define DISK_BYTES (4 * MIB)
#define DEPTH      32u
#define DATA_BYTES ((size_t)16384)

struct slot {
    struct io_request io;
    struct iovec iovs[4];
    uint8_t *data; /* owned */
    bool is_busy;
};

struct fixture {
    enum io_engine_kind kind;
    struct io_engine *engine;
    int wake_fd;
    struct slot slots[DEPTH];
    unsigned in_flight;
};

/* False where the kernel does not let us. */
static bool set_up_beside(struct fixture *fixture, enum io_engine_kind kind,
                          struct io_engine *sibling)
{
    memset(fixture, 0, sizeof(*fixture));
    fixture->wake_fd = eventfd(0, EFD_CLOEXEC);
    struct io_engine_options options = {
        .kind = kind, .depth = DEPTH, .wake_fd = fixture->wake_fd, .sibling = sibling};
    struct err *err = io_engine_create(&options, &fixture->engine);
    if (err != NULL && err_kind(err) == ERR_STATE) {
        print_message("skipped: %s\n", err_message(err));
        err_free(err);
        (void)close(fixture->wake_fd);
        return false;
    }
    ASSERT_OK(err);
    ASSERT_OK(io_engine_attach(fixture->engine));
    for (unsigned i = 0; i < DEPTH; i++) {
        void *data = NULL;
        assert_int_equal(posix_memalign(&data, 4096, DATA_BYTES), 0);
        fixture->slots[i].data = data;
    }
    return true;
}

static bool set_up(struct fixture *fixture, enum io_engine_kind kind)
{
    return set_up_beside(fixture, kind, NULL);
}

static void tear_down(struct fixture *fixture)
{
    assert_int_equal(fixture->in_flight, 0);
    io_engine_destroy(fixture->engine);
    for (unsigned i = 0; i < DEPTH; i++)
        free(fixture->slots[i].data);
    (void)close(fixture->wake_fd);
}

static void submit(struct fixture *fixture, struct slot *slot, enum io_operation operation,
                   struct block *block, uint64_t offset, size_t len)
{
    slot->io.operation = operation;
    slot->io.block = block;
    slot->io.offset = offset;
    slot->io.len = len;
    slot->iovs[0] = (struct iovec){slot->data, len};
    slot->io.iovs = slot->iovs;
    slot->io.iov_count = 1;
    slot->is_busy = true;
    fixture->in_flight++;
    io_engine_submit(fixture->engine, &slot->io);
}

/* Waits for one at least. */
static struct io_list wait_some(struct fixture *fixture)
{
    struct io_list done = {.first = NULL};

    while (done.first == NULL)
        io_engine_wait(fixture->engine, UINT64_MAX, &done);
    for (struct io_request *request = done.first; request != NULL; request = request->next) {
        CONTAINER_OF(request, struct slot, io)->is_busy = false;
        fixture->in_flight--;
    }
    return done;
}

/* One request, and how it ended. */
static struct err *run(struct fixture *fixture, enum io_operation operation, struct block *block,
                       uint64_t offset, size_t len)
{
    submit(fixture, &fixture->slots[0], operation, block, offset, len);
    struct io_list done = wait_some(fixture);
    assert_ptr_equal(done.first, &fixture->slots[0].io);
    return done.first->err;
}

static struct block *open_raw(enum host_file_cache cache, uint64_t bytes, int *out_fd)
{
    char path[] = "io_engine_test.XXXXXX";
    struct host_file *file = NULL;
    struct block *block = NULL;
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
    *out_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    ASSERT_OK(host_file_open_fd(fd, path, cache, &file));
    ASSERT_OK(raw_image_open(file, false, &block));
    return block;
}

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static struct slot *free_slot(struct fixture *fixture)
{
    for (unsigned i = 0; i < DEPTH; i++)
        if (!fixture->slots[i].is_busy)
            return &fixture->slots[i];
    return NULL;
}

static void check_done(const struct io_list *done, const uint8_t *model)
{
    for (struct io_request *io = done->first; io != NULL; io = io->next) {
        ASSERT_OK(io->err);
        if (io->operation == IO_READ)
            assert_memory_equal(CONTAINER_OF(io, struct slot, io)->data, model + io->offset,
                                io->len);
    }
}

/* Slot n has every DEPTH-th piece of the disk, so that what is in flight does not overlap. */
static void submit_random(struct fixture *fixture, struct slot *slot, struct block *disk,
                          uint8_t *model, uint32_t *random)
{
    uint64_t number = (uint64_t)(slot - fixture->slots);
    uint64_t piece = next_random(random) % (DISK_BYTES / DATA_BYTES / DEPTH) * DEPTH + number;
    size_t len = 512 * ((size_t)1 + next_random(random) % (DATA_BYTES / 512));
    uint64_t offset = piece * DATA_BYTES + (DATA_BYTES - len) / 512 / 2 * 512;
    bool is_write = next_random(random) % 2 == 0;

    if (is_write) {
        memset(slot->data, (int)(next_random(random) % 255 + 1), len);
        memcpy(model + offset, slot->data, len);
    }
    submit(fixture, slot, is_write ? IO_WRITE : IO_READ, disk, offset, len);
}

static void write_and_read_at_depth(enum io_engine_kind kind, enum host_file_cache cache)
{
    static uint8_t model[DISK_BYTES];
    struct fixture fixture;
    uint32_t random = 11;
    int fd;
    if (!set_up(&fixture, kind))
        return;
    struct block *disk = open_raw(cache, DISK_BYTES, &fd);
    memset(model, 0, sizeof(model));

    for (unsigned round = 0; round < 1500; round++) {
        struct slot *slot = free_slot(&fixture);
        while (slot == NULL) {
            struct io_list done = wait_some(&fixture);
            check_done(&done, model);
            slot = free_slot(&fixture);
        }
        submit_random(&fixture, slot, disk, model, &random);
    }
    while (fixture.in_flight > 0)
        (void)wait_some(&fixture);
    ASSERT_OK(run(&fixture, IO_FLUSH, disk, 0, 0));

    for (uint64_t at = 0; at < DISK_BYTES; at += DATA_BYTES) {
        ASSERT_OK(run(&fixture, IO_READ, disk, at, DATA_BYTES));
        assert_memory_equal(fixture.slots[0].data, model + at, DATA_BYTES);
    }
    ASSERT_OK(block_close(disk));
    (void)close(fd);
    tear_down(&fixture);
}

TEST(what_is_written_at_depth_is_read_back)
{
    write_and_read_at_depth(IO_ENGINE_URING, HOST_FILE_CACHE_NONE);
    write_and_read_at_depth(IO_ENGINE_URING, HOST_FILE_CACHE_WRITEBACK);
    write_and_read_at_depth(IO_ENGINE_THREADS, HOST_FILE_CACHE_NONE);
}

static const enum io_engine_kind kinds[] = {IO_ENGINE_URING, IO_ENGINE_THREADS};

TEST(a_format_that_plans_nothing_is_served_too)
{
    for (size_t i = 0; i < ARRAY_COUNT(kinds); i++) {
        struct fixture fixture;
        struct block *disk = NULL;
        if (!set_up(&fixture, kinds[i]))
            continue;
        ASSERT_OK(block_memory_create(DISK_BYTES, &disk));

        memset(fixture.slots[0].data, 5, 1024);
        ASSERT_OK(run(&fixture, IO_WRITE, disk, 512, 1024));
        ASSERT_OK(run(&fixture, IO_WRITE_ZEROES, disk, 1024, 512));
        ASSERT_OK(run(&fixture, IO_READ, disk, 512, 1024));
        assert_int_equal(fixture.slots[0].data[511], 5);
        assert_int_equal(fixture.slots[0].data[512], 0);
        ASSERT_OK(run(&fixture, IO_FLUSH, disk, 0, 0));
        assert_int_equal(block_memory_flush_count(disk), 1);
        block_memory_set_failing(disk, true);
        assert_fails(run(&fixture, IO_READ, disk, 0, 512), ERR_IO);
        assert_fails(run(&fixture, IO_DISCARD, disk, 0, 512), ERR_IO);

        ASSERT_OK(block_close(disk));
        tear_down(&fixture);
    }
}

TEST(requests_outside_the_disk_fail)
{
    for (size_t i = 0; i < ARRAY_COUNT(kinds); i++) {
        struct fixture fixture;
        int fd;
        if (!set_up(&fixture, kinds[i]))
            continue;
        struct block *disk = open_raw(HOST_FILE_CACHE_NONE, 8192, &fd);

        assert_fails(run(&fixture, IO_READ, disk, 8192, 512), ERR_INVALID);
        disk->is_read_only = true;
        assert_fails(run(&fixture, IO_WRITE, disk, 0, 512), ERR_STATE);

        ASSERT_OK(block_close(disk));
        (void)close(fd);
        tear_down(&fixture);
    }
}

/* The kernel gives less than was asked for: the blocking call knows what that means. */
TEST(a_file_that_became_shorter_reads_as_zeros)
{
    for (size_t i = 0; i < ARRAY_COUNT(kinds); i++) {
        struct fixture fixture;
        int fd;
        if (!set_up(&fixture, kinds[i]))
            continue;
        struct block *disk = open_raw(HOST_FILE_CACHE_NONE, 8192, &fd);
        memset(fixture.slots[0].data, 9, 8192);
        ASSERT_OK(run(&fixture, IO_WRITE, disk, 0, 8192));
        assert_int_equal(ftruncate(fd, 4608), 0);

        memset(fixture.slots[0].data, 1, 8192);
        ASSERT_OK(run(&fixture, IO_READ, disk, 0, 8192));
        assert_int_equal(fixture.slots[0].data[4607], 9);
        assert_int_equal(fixture.slots[0].data[4608], 0);

        ASSERT_OK(block_close(disk));
        (void)close(fd);
        tear_down(&fixture);
    }
}

/* Pieces of 512 bytes: from the file, zeros, from the file ... each with a hold. */
struct striped {
    struct block base;
    struct block *raw;
    struct block_hold hold;
    unsigned held;
    unsigned transferred;
    unsigned blocking;
};

static bool striped_plan(struct block *block, enum block_request_kind kind, uint64_t offset,
                         uint64_t len, struct block_plan *plan)
{
    struct striped *self = CONTAINER_OF(block, struct striped, base);

    for (uint64_t done = 0; done < len; done += 512) {
        struct block_plan inner;
        assert_true(block_plan(self->raw, kind, offset + done, 512, &inner));
        struct block_extent extent = inner.extents[0];
        if ((offset + done) / 512 % 2 != 0)
            extent.file = NULL;
        extent.hold = &self->hold;
        if (!block_plan_add(plan, &extent))
            return false;
        self->held++;
    }
    return true;
}

static void striped_finish(struct block *block, struct block_hold *hold, enum block_outcome outcome)
{
    struct striped *self = CONTAINER_OF(block, struct striped, base);

    assert_ptr_equal(hold, &self->hold);
    self->held--;
    self->transferred += outcome == BLOCK_TRANSFERRED;
}

static struct err *striped_read(struct block *block, const struct iovec *iovs, int iov_count,
                                uint64_t offset)
{
    struct striped *self = CONTAINER_OF(block, struct striped, base);

    self->blocking++;
    return block_read(self->raw, iovs, iov_count, offset);
}

TEST(a_scattered_request_goes_to_all_of_its_extents)
{
    static const struct block_ops ops = {
        .format = "striped", .read = striped_read, .plan = striped_plan, .finish = striped_finish};
    struct fixture fixture;
    int fd;
    if (!set_up(&fixture, IO_ENGINE_URING))
        return;
    struct striped striped = {.base = {.ops = &ops, .virtual_bytes = 65536}};
    struct slot *slot = &fixture.slots[0];
    striped.hold.holder = &striped.base;
    striped.raw = open_raw(HOST_FILE_CACHE_WRITEBACK, 65536, &fd);
    memset(slot->data, 3, DATA_BYTES);
    ASSERT_OK(run(&fixture, IO_WRITE, striped.raw, 0, DATA_BYTES));

    /* 2048 bytes in pieces of 700, 0, 100 and 1248. */
    memset(slot->data, 1, DATA_BYTES);
    submit(&fixture, slot, IO_FLUSH, striped.raw, 0, 0);
    (void)wait_some(&fixture);
    slot->io.operation = IO_READ;
    slot->io.block = &striped.base;
    slot->io.offset = 512;
    slot->io.len = 2048;
    slot->io.iov_count = 4;
    slot->iovs[0] = (struct iovec){slot->data, 700};
    slot->iovs[1] = (struct iovec){slot->data + 700, 0};
    slot->iovs[2] = (struct iovec){slot->data + 4096, 100};
    slot->iovs[3] = (struct iovec){slot->data + 800, 1248};
    fixture.in_flight++;
    io_engine_submit(fixture.engine, &slot->io);
    ASSERT_OK(wait_some(&fixture).first->err);
    memcpy(slot->data + 700, slot->data + 4096, 100);

    for (unsigned i = 0; i < 2048; i++)
        assert_int_equal(slot->data[i], i / 512 % 2 == 0 ? 0 : 3);
    assert_int_equal(striped.held, 0);
    assert_int_equal(striped.transferred, 4);
    assert_int_equal(striped.blocking, 0);

    /* Nine extents are too many: what was held is given back. */
    ASSERT_OK(run(&fixture, IO_READ, &striped.base, 0, (size_t)9 * 512));
    assert_int_equal(striped.held, 0);
    assert_int_equal(striped.transferred, 4);
    assert_int_equal(striped.blocking, 1);
    ASSERT_OK(block_close(striped.raw));
    (void)close(fd);
    tear_down(&fixture);
}

TEST(a_wait_ends_at_its_deadline_and_when_woken)
{
    for (size_t i = 0; i < ARRAY_COUNT(kinds); i++) {
        struct fixture fixture;
        struct io_list done = {.first = NULL};
        if (!set_up(&fixture, kinds[i]))
            continue;

        uint64_t deadline = clock_monotonic_ns() + 5 * NS_PER_MS;
        while (clock_monotonic_ns() < deadline)
            io_engine_wait(fixture.engine, deadline, &done);
        for (unsigned round = 0; round < 3; round++) {
            assert_int_equal(eventfd_write(fixture.wake_fd, 1), 0);
            io_engine_wait(fixture.engine, UINT64_MAX, &done);
        }

        assert_null(done.first);
        tear_down(&fixture);
    }
}

static bool is_of(const struct fixture *fixture, const struct io_request *request)
{
    const struct slot *slot = CONTAINER_OF(request, const struct slot, io);

    return slot >= fixture->slots && slot < fixture->slots + DEPTH;
}

static unsigned count_of(const struct fixture *fixture, struct io_list list)
{
    unsigned count = 0;

    for (const struct io_request *request = list.first; request != NULL; request = request->next) {
        assert_true(is_of(fixture, request));
        count++;
    }
    return count;
}

TEST(siblings_share_threads_and_get_back_their_own_requests_alone)
{
    for (size_t i = 0; i < ARRAY_COUNT(kinds); i++) {
        struct gated_block gate;
        struct fixture first, second;
        struct io_list recalled = {.first = NULL};
        if (!set_up(&first, kinds[i]))
            continue;
        assert_true(set_up_beside(&second, kinds[i], first.engine));
        gate_init(&gate, DISK_BYTES);

        for (unsigned n = 0; n < 16; n++)
            submit(&first, &first.slots[n], IO_WRITE, &gate.base, 0, 512);
        gate_wait_entered(&gate, 4);
        for (unsigned n = 0; n < 8; n++)
            submit(&second, &second.slots[n], IO_WRITE, &gate.base, 0, 512);
        io_engine_recall(first.engine, &recalled);
        unsigned recalled_count = count_of(&first, recalled);
        assert_in_range(recalled_count, 8, 12); /* the threads, 4 or 8, have taken the others */
        first.in_flight -= recalled_count;

        gate_open(&gate);
        while (second.in_flight > 0)
            (void)count_of(&second, wait_some(&second));
        while (first.in_flight > 0)
            (void)count_of(&first, wait_some(&first));
        tear_down(&first); /* the first of them may be the first to leave */
        ASSERT_OK(run(&second, IO_WRITE, &gate.base, 0, 512));
        tear_down(&second);
        gate_finish(&gate);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_at_depth_is_read_back),
        cmocka_unit_test(a_format_that_plans_nothing_is_served_too),
        cmocka_unit_test(requests_outside_the_disk_fail),
        cmocka_unit_test(a_file_that_became_shorter_reads_as_zeros),
        cmocka_unit_test(a_scattered_request_goes_to_all_of_its_extents),
        cmocka_unit_test(a_wait_ends_at_its_deadline_and_when_woken),
        cmocka_unit_test(siblings_share_threads_and_get_back_their_own_requests_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
