/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/checked_math.h"
#include "base/limits.h"
#include "base/thread.h"
#include "base/unit_test.h"
#include "storage/block_memory.h"
#include "storage/block_tracked.h"
#include "storage/dirty_blocks.h"

#define DISK_BYTES (10 * MIB + 512)
#define PART       ((uint64_t)65536)

#define BOOT_ID_AT 32 /* in the header */

static char folder[] = "/tmp/dirty_blocks_test.XXXXXX";
static char path[64];

static struct err *open_at(const char *file, const char *image, uint64_t bytes,
                           struct dirty_blocks **out_blocks)
{
    struct dirty_blocks_image about = {
        .path = image, .virtual_bytes = bytes, .modified_ns = dirty_blocks_modified_ns(image)};

    return dirty_blocks_open(file, &about, out_blocks);
}

static struct dirty_blocks *open_blocks(const char *image)
{
    struct dirty_blocks *blocks = NULL;

    ASSERT_OK(open_at(path, image, DISK_BYTES, &blocks));
    return blocks;
}

static void mark(struct dirty_blocks *blocks, uint64_t offset, uint64_t len)
{
    dirty_blocks_leave(blocks, dirty_blocks_enter(blocks, offset, len));
}

static uint64_t bytes_of(struct dirty_blocks *blocks, enum dirty_blocks_kind kind)
{
    struct dirty_range range;
    uint64_t bytes = 0;

    for (uint64_t at = 0; dirty_blocks_next(blocks, kind, at, &range);
         at = range.offset + range.bytes)
        bytes += range.bytes;
    return bytes;
}

static void copy_all(struct dirty_blocks *blocks)
{
    struct dirty_range range;

    for (uint64_t at = 0; dirty_blocks_next(blocks, DIRTY_BLOCKS_TO_COPY, at, &range);
         at = range.offset + range.bytes)
        dirty_blocks_done(blocks, range);
}

/* A file whose disk was copied as a whole; open. */
static struct dirty_blocks *open_copied(const char *image)
{
    struct dirty_blocks *blocks = open_blocks(image);

    ASSERT_OK(dirty_blocks_begin(blocks));
    copy_all(blocks);
    assert_int_equal(bytes_of(blocks, DIRTY_BLOCKS_CHANGED), 0);
    assert_int_equal(bytes_of(blocks, DIRTY_BLOCKS_TO_COPY), 0);
    return blocks;
}

static void expect_changed(struct dirty_blocks *blocks, uint64_t offset, uint64_t bytes)
{
    struct dirty_range range;

    assert_true(dirty_blocks_next(blocks, DIRTY_BLOCKS_CHANGED, 0, &range));
    assert_int_equal(range.offset, offset);
    assert_int_equal(range.bytes, bytes);
    assert_int_equal(bytes_of(blocks, DIRTY_BLOCKS_CHANGED), bytes);
}

TEST(at_first_everything_is_to_be_copied)
{
    struct dirty_blocks *blocks = open_blocks("web.img");

    expect_changed(blocks, 0, DISK_BYTES);
    assert_int_equal(dirty_blocks_granularity(blocks), PART);
    ASSERT_OK(dirty_blocks_close(blocks));
}

TEST(what_is_written_is_told_in_parts)
{
    struct dirty_blocks *blocks = open_copied("web.img");
    struct dirty_range range;

    mark(blocks, PART - 1, 2);
    mark(blocks, DISK_BYTES - 1, 1);
    mark(blocks, 5 * PART, 0);

    assert_true(dirty_blocks_next(blocks, DIRTY_BLOCKS_CHANGED, 100, &range));
    assert_int_equal(range.offset, 100);
    assert_int_equal(range.bytes, 2 * PART - 100);
    assert_true(dirty_blocks_next(blocks, DIRTY_BLOCKS_CHANGED, 2 * PART, &range));
    assert_int_equal(range.offset, 160 * PART);
    assert_int_equal(range.bytes, 512);
    assert_false(dirty_blocks_next(blocks, DIRTY_BLOCKS_CHANGED, DISK_BYTES, &range));
    ASSERT_OK(dirty_blocks_close(blocks));
}

TEST(a_copy_that_ends_early_loses_nothing)
{
    struct dirty_blocks *blocks = open_copied("web.img");

    mark(blocks, 0, 4 * PART);
    ASSERT_OK(dirty_blocks_begin(blocks));
    mark(blocks, 8 * PART, 1);
    dirty_blocks_done(blocks, (struct dirty_range){PART / 2, PART + PART / 2}); /* one and a half */
    assert_int_equal(bytes_of(blocks, DIRTY_BLOCKS_TO_COPY), 3 * PART);
    expect_changed(blocks, 8 * PART, PART);
    ASSERT_OK(dirty_blocks_close(blocks));

    blocks = open_blocks("web.img");
    ASSERT_OK(dirty_blocks_begin(blocks));
    assert_int_equal(bytes_of(blocks, DIRTY_BLOCKS_TO_COPY), 4 * PART);
    ASSERT_OK(dirty_blocks_close(blocks));
}

static void edit(off_t at, const char *bytes)
{
    int fd = open(path, O_WRONLY);

    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, strlen(bytes), at), (ssize_t)strlen(bytes));
    assert_int_equal(close(fd), 0);
}

/* A process that marks and is killed. */
static void mark_and_die(void)
{
    int status = 0;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        struct dirty_blocks *blocks = NULL;
        if (open_at(path, "web.img", DISK_BYTES, &blocks) == NULL)
            (void)dirty_blocks_enter(blocks, 3 * PART, 1);
        (void)raise(SIGKILL);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
}

TEST(a_kill_loses_no_change)
{
    ASSERT_OK(dirty_blocks_close(open_copied("web.img")));
    mark_and_die();

    struct dirty_blocks *blocks = open_blocks("web.img");
    expect_changed(blocks, 3 * PART, PART);
    ASSERT_OK(dirty_blocks_close(blocks));
}

TEST(after_a_power_cut_everything_counts_as_changed)
{
    struct dirty_blocks *blocks = open_copied("web.img");

    ASSERT_OK(dirty_blocks_close(blocks));
    edit(BOOT_ID_AT, "another-boot");
    blocks = open_blocks("web.img"); /* it was closed in order: no matter */
    assert_int_equal(bytes_of(blocks, DIRTY_BLOCKS_CHANGED), 0);
    ASSERT_OK(dirty_blocks_close(blocks));

    mark_and_die();
    edit(BOOT_ID_AT, "another-boot");
    blocks = open_blocks("web.img");
    expect_changed(blocks, 0, DISK_BYTES);
    ASSERT_OK(dirty_blocks_close(blocks));
}

TEST(another_image_or_size_counts_as_changed)
{
    struct dirty_blocks *blocks = open_copied("/vm/web.000001.qcow2");

    ASSERT_OK(dirty_blocks_set_image(blocks, "/vm/web.000002.qcow2"));
    ASSERT_OK(dirty_blocks_close(blocks));
    blocks = open_blocks("./web.000002.qcow2"); /* it went on there: a freeze */
    assert_int_equal(bytes_of(blocks, DIRTY_BLOCKS_CHANGED), 0);
    ASSERT_OK(dirty_blocks_close(blocks));
    blocks = open_blocks("web.000003.qcow2"); /* it was put there: a restore */
    expect_changed(blocks, 0, DISK_BYTES);
    ASSERT_OK(dirty_blocks_begin(blocks));
    copy_all(blocks);
    ASSERT_OK(dirty_blocks_close(blocks));
    ASSERT_OK(open_at(path, "web.000003.qcow2", 2 * DISK_BYTES - 512, &blocks));
    assert_int_equal(bytes_of(blocks, DIRTY_BLOCKS_CHANGED), 2 * DISK_BYTES - 512);
    ASSERT_OK(dirty_blocks_close(blocks));
}

TEST(what_others_did_to_the_image_counts_as_changed)
{
    char image[80];

    (void)snprintf(image, sizeof(image), "%s/real.img", folder);
    int fd = open(image, O_RDWR | O_CREAT, 0600);
    assert_true(fd >= 0);
    struct dirty_blocks *blocks = open_copied(image);
    assert_int_equal(write(fd, "guest", 5), 5);
    mark(blocks, 0, 5);
    ASSERT_OK(dirty_blocks_close(blocks));
    blocks = open_blocks(image);
    expect_changed(blocks, 0, PART);
    ASSERT_OK(dirty_blocks_close(blocks));

    const struct timespec times[2] = {{1, 0}, {1, 0}}; /* as a write does */
    assert_int_equal(utimensat(AT_FDCWD, image, times, 0), 0);
    assert_int_equal(close(fd), 0);
    blocks = open_blocks(image);
    expect_changed(blocks, 0, DISK_BYTES);
    ASSERT_OK(dirty_blocks_close(blocks));
}

TEST(one_writes_and_others_may_copy)
{
    struct dirty_blocks *blocks = open_copied("web.img"), *copier = NULL, *other = NULL;

    assert_fails(open_at(path, "web.img", DISK_BYTES, &other), ERR_DENIED);
    ASSERT_OK(dirty_blocks_attach(path, &copier));
    mark(blocks, 0, 2 * PART);
    assert_int_equal(bytes_of(copier, DIRTY_BLOCKS_CHANGED), 2 * PART);
    assert_fails(dirty_blocks_begin(copier), ERR_DENIED);
    ASSERT_OK(dirty_blocks_begin(blocks));
    dirty_blocks_done(copier, (struct dirty_range){0, PART});
    assert_int_equal(bytes_of(blocks, DIRTY_BLOCKS_TO_COPY), PART);
    ASSERT_OK(dirty_blocks_close(blocks));

    /* Without the machine the copier begins by itself, and then the machine can come back. */
    ASSERT_OK(dirty_blocks_begin(copier));
    copy_all(copier);
    blocks = open_blocks("web.img");
    assert_int_equal(bytes_of(blocks, DIRTY_BLOCKS_CHANGED), 0);
    assert_int_equal(bytes_of(blocks, DIRTY_BLOCKS_TO_COPY), 0);
    ASSERT_OK(dirty_blocks_close(copier));
    ASSERT_OK(dirty_blocks_close(blocks));
}

TEST(strange_files_are_left_alone)
{
    static const char text[] = "what somebody wrote";
    struct dirty_blocks *blocks = NULL;
    char data[sizeof(text)] = "";

    assert_fails(dirty_blocks_attach(path, &blocks), ERR_NOT_FOUND);
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    assert_int_equal(write(fd, text, sizeof(text)), sizeof(text));
    assert_fails(open_at(path, "web.img", DISK_BYTES, &blocks), ERR_INVALID);
    assert_int_equal(pread(fd, data, sizeof(data), 0), sizeof(data));
    assert_string_equal(data, text);
    assert_int_equal(close(fd), 0);
}

TEST(damaged_files_are_refused)
{
    struct dirty_blocks *blocks = NULL;

    ASSERT_OK(dirty_blocks_close(open_copied("web.img")));
    edit(8, "\x07");
    assert_fails(open_at(path, "web.img", DISK_BYTES, &blocks), ERR_INCOMPATIBLE);
    edit(0, "nonsense");
    assert_fails(open_at(path, "web.img", DISK_BYTES, &blocks), ERR_INVALID);
    assert_fails(dirty_blocks_attach(path, &blocks), ERR_INVALID);
    assert_int_equal(truncate(path, 5000), 0);
    assert_fails(dirty_blocks_attach(path, &blocks), ERR_INVALID);
    assert_int_equal(truncate(path, 100), 0);
    assert_fails(dirty_blocks_attach(path, &blocks), ERR_INVALID);
}

TEST(huge_disks_have_larger_parts)
{
    struct dirty_blocks *blocks = NULL;

    ASSERT_OK(open_at(path, "huge", (uint64_t)1 << 50, &blocks));
    assert_int_equal(dirty_blocks_granularity(blocks), 16 * MIB);
    ASSERT_OK(dirty_blocks_close(blocks));
}

/* Writers stamp sectors through the decorator; a copier follows them. */
struct writer_thread {
    struct block *disk;
    atomic_bool *has_ended;
    unsigned seed;
};

static void write_on(void *argument)
{
    struct writer_thread *writer = argument;
    uint8_t data[4096];
    struct iovec iov = {data, sizeof(data)};

    for (uint64_t i = 1; !atomic_load(writer->has_ended); i++) {
        uint64_t offset = (uint64_t)rand_r(&writer->seed) % (DISK_BYTES / 4096) * 4096;
        memset(data, (int)(i + writer->seed), sizeof(data));
        ASSERT_OK(block_write(writer->disk, &iov, 1, offset));
    }
}

static void copy_round(struct dirty_blocks *blocks, struct block *from, uint8_t *copy)
{
    struct dirty_range range;

    ASSERT_OK(dirty_blocks_begin(blocks));
    for (uint64_t at = 0; dirty_blocks_next(blocks, DIRTY_BLOCKS_TO_COPY, at, &range);
         at = range.offset + range.bytes) {
        struct iovec iov = {copy + range.offset, range.bytes};
        ASSERT_OK(block_read(from, &iov, 1, range.offset));
        dirty_blocks_done(blocks, range);
    }
}

TEST(a_copy_under_writes_ends_up_the_same)
{
    struct dirty_blocks *blocks = open_blocks("web.img");
    struct block *memory = NULL, *disk = NULL;
    struct thread *threads[3];
    struct writer_thread writers[3];
    atomic_bool has_ended = false;
    uint8_t *copy = calloc(1, DISK_BYTES);

    assert_non_null(copy);
    ASSERT_OK(block_memory_create(DISK_BYTES, &memory));
    ASSERT_OK(block_tracked_create(memory, &blocks, 1, &disk));
    for (unsigned i = 0; i < 3; i++) {
        writers[i] = (struct writer_thread){disk, &has_ended, i + 1};
        ASSERT_OK(thread_create(ROLE_TEST, i, write_on, &writers[i], &threads[i]));
    }
    for (int round = 0; round < 30; round++)
        copy_round(blocks, disk, copy);
    atomic_store(&has_ended, true);
    for (unsigned i = 0; i < 3; i++)
        thread_join(threads[i]);
    copy_round(blocks, disk, copy);

    assert_memory_equal(copy, block_memory_bytes(memory), DISK_BYTES);
    ASSERT_OK(block_close(disk));
    ASSERT_OK(block_close(memory));
    ASSERT_OK(dirty_blocks_close(blocks));
    free(copy);
}

static bool plan_all(struct block *block, enum block_request_kind kind, uint64_t offset,
                     uint64_t len, struct block_plan *plan)
{
    (void)block;
    (void)kind;
    return block_plan_add(plan, &(struct block_extent){.offset = offset, .bytes = len});
}

TEST(every_change_is_noted_planned_ones_too)
{
    struct dirty_blocks *trackers[2] = {open_copied("web.img"), NULL};
    char second[80];
    struct block *memory = NULL, *disk = NULL;
    struct block_plan plan;
    uint8_t data[512] = {1};
    struct iovec iov = {data, sizeof(data)};

    (void)snprintf(second, sizeof(second), "%s2", path);
    ASSERT_OK(open_at(second, "web.img", DISK_BYTES, &trackers[1]));
    ASSERT_OK(dirty_blocks_begin(trackers[1]));
    ASSERT_OK(block_memory_create(DISK_BYTES, &memory));
    struct block_ops ops = *memory->ops;
    const struct block_ops *real = memory->ops;
    ops.plan = plan_all;
    memory->ops = &ops;
    ASSERT_OK(block_tracked_create(memory, trackers, 2, &disk));

    ASSERT_OK(block_write(disk, &iov, 1, 0));
    ASSERT_OK(block_write_zeroes(disk, 2 * PART, 512, true));
    ASSERT_OK(block_discard(disk, 4 * PART, 512));
    ASSERT_OK(block_read(disk, &iov, 1, 6 * PART));
    ASSERT_OK(block_flush(disk));
    assert_true(block_plan(disk, BLOCK_REQUEST_READ, 6 * PART, 512, &plan));
    block_plan_finish(&plan, BLOCK_TRANSFERRED);
    assert_true(block_plan(disk, BLOCK_REQUEST_CHANGE, 8 * PART, 512, &plan));
    assert_int_equal(plan.count, 1);
    assert_int_equal(bytes_of(trackers[0], DIRTY_BLOCKS_CHANGED), 4 * PART);
    assert_int_equal(bytes_of(trackers[1], DIRTY_BLOCKS_CHANGED), 4 * PART);
    block_plan_finish(&plan, BLOCK_TRANSFERRED);
    assert_false(block_plan(disk, BLOCK_REQUEST_CHANGE, DISK_BYTES, 512, &plan));
    ASSERT_OK(dirty_blocks_begin(trackers[0])); /* none is under way any more */

    memory->ops = real;
    ASSERT_OK(block_close(disk));
    ASSERT_OK(block_close(memory));
    ASSERT_OK(dirty_blocks_close(trackers[0]));
    ASSERT_OK(dirty_blocks_close(trackers[1]));
}

static int start(void **state)
{
    (void)state;
    (void)unlink(path);
    return 0;
}

static int make_folder(void **state)
{
    (void)state;
    if (mkdtemp(folder) == NULL)
        return 1;
    (void)snprintf(path, sizeof(path), "%s/web.backup.changes", folder);
    return 0;
}

static int remove_folder(void **state)
{
    char command[128];

    (void)state;
    (void)snprintf(command, sizeof(command), "rm -rf %s", folder);
    return system(command);
}

#define ANEW(test) cmocka_unit_test_setup(test, start)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ANEW(at_first_everything_is_to_be_copied),
        ANEW(what_is_written_is_told_in_parts),
        ANEW(a_copy_that_ends_early_loses_nothing),
        ANEW(a_kill_loses_no_change),
        ANEW(after_a_power_cut_everything_counts_as_changed),
        ANEW(another_image_or_size_counts_as_changed),
        ANEW(what_others_did_to_the_image_counts_as_changed),
        ANEW(one_writes_and_others_may_copy),
        ANEW(strange_files_are_left_alone),
        ANEW(damaged_files_are_refused),
        ANEW(huge_disks_have_larger_parts),
        ANEW(a_copy_under_writes_ends_up_the_same),
        ANEW(every_change_is_noted_planned_ones_too),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
