/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_stress_test.c - four queues on one disk: is what they read what somebody wrote, and not long
 * overwritten?
 *
 * Every sector written carries who wrote it and where it belongs. Requests overlap in a few
 * clusters on purpose, are not aligned to them, and mix writes, zeroing, discards, flushes and
 * reads, planned or by the blocking call. Meanwhile the disk is switched to a new overlay every
 * 10 ms, and sealed layers are merged under it. A read may give
 *
 *   - a write that no other write, which was over before the read began, began after;
 *   - zeros, if such a zeroing or discard was there;
 *   - and never a sector of another place, a torn one, or what was never written.
 *
 * In the end all layers are checked, and the disk is read once more from its files.
 *
 * FERRY_TEST_SECONDS: how long each disk is used, 2 by default; FERRY_TEST_SEED.
 */
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked_math.h"
#include "base/clock.h"
#include "base/file_io.h"
#include "base/limits.h"
#include "base/lock.h"
#include "base/thread.h"
#include "base/unit_test.h"
#include "storage/disk_image.h"
#include "storage/host_file.h"
#include "storage/layer_merge.h"
#include "storage/qcow/qcow_create.h"
#include "storage/testing/chance.h"
#include "storage/testing/planned_request.h"
#include "storage/testing/qcow_checker.h"
#include "storage/testing/sector_stamp.h"

#define DISK_BYTES      ((uint64_t)4 << 20)
#define SECTORS         (DISK_BYTES / SECTOR_BYTES)
#define HOT_SECTORS     1024u /* where most requests go */
#define REQUEST_SECTORS 160u
#define QUEUES          4u
#define OPERATIONS_MAX  (1u << 21)
#define CHECKPOINT_MS   10u
#define LAYERS_MAX      100u
#define MERGE_EVERY     16u
#define MERGE_COUNT     6u
#define BASE_OPERATION  1u /* wrote the base image */
#define IN_FLIGHT       UINT64_MAX

struct shape {
    const char *name;
    const char *backing_format; /* NULL: none */
    unsigned cluster_bits;
    bool has_extended_l2;
    bool has_checkpoints;
};

/* Times are tickets: each start and each end draws the next number. */
struct sector_state {
    uint64_t floor;             /* the latest start of a write or zeroing that is over */
    uint64_t zero_end;          /* the end of the latest zeroing or discard */
    uint64_t change_end;        /* the end of the latest change of any kind */
    uint32_t zeroing, changing; /* how many are at it */
};

struct stress {
    const struct shape *shape;
    struct block *disk; /* exchanged while the gate is closed */
    char path[128];
    atomic_uint_fast64_t tickets;    /* relaxed: a counter */
    atomic_uint_fast32_t operations; /* relaxed: a counter */
    atomic_bool is_over;             /* relaxed: a flag that publishes nothing */
    atomic_uint_fast64_t planned;    /* relaxed: a counter */

    struct lock lock; /* not held during requests */
    struct lock_condition changed;
    bool is_gate_closed GUARDED_BY(&lock);
    unsigned inside GUARDED_BY(&lock);
    uint64_t *ends GUARDED_BY(&lock);               /* owned: of each operation */
    struct sector_state *sectors GUARDED_BY(&lock); /* owned */
};

struct queue {
    struct stress *stress;
    unsigned index;
    struct thread *thread;
    uint8_t data[REQUEST_SECTORS * SECTOR_BYTES];
    uint64_t floors[REQUEST_SECTORS];
};

static char folder[64];

/* In queues, where a test can not be left otherwise. */
__attribute__((format(printf, 1, 2), noreturn)) static void give_up(const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    (void)vfprintf(stderr, fmt, args);
    va_end(args);
    (void)fputc('\n', stderr);
    abort();
}

static void must(struct err *err)
{
    if (err != NULL)
        give_up("%s", err_message(err));
}

static uint64_t ticket(struct stress *stress)
{
    return atomic_fetch_add_explicit(&stress->tickets, 1, memory_order_relaxed) + 1;
}

static uint64_t stamp_for(uint32_t operation, uint64_t sector)
{
    return (uint64_t)operation << 32 | sector;
}

static void enter(struct stress *stress)
{
    lock_acquire(&stress->lock);
    while (stress->is_gate_closed)
        lock_condition_wait(&stress->changed, &stress->lock);
    stress->inside++;
    lock_release(&stress->lock);
}

static void leave(struct stress *stress)
{
    lock_acquire(&stress->lock);
    stress->inside--;
    lock_condition_broadcast(&stress->changed);
    lock_release(&stress->lock);
}

static void close_gate(struct stress *stress)
{
    lock_acquire(&stress->lock);
    stress->is_gate_closed = true;
    while (stress->inside > 0)
        lock_condition_wait(&stress->changed, &stress->lock);
    lock_release(&stress->lock);
}

static void open_gate(struct stress *stress)
{
    lock_acquire(&stress->lock);
    stress->is_gate_closed = false;
    lock_condition_broadcast(&stress->changed);
    lock_release(&stress->lock);
}

/* Is what a read found something that it may find? The host does not read a sector in one piece
 * while it is written, so that a mixture is possible then. */
static void judge_sector_locked(struct stress *stress, uint64_t sector, uint64_t floor,
                                uint64_t began, const uint8_t *data) REQUIRES(&stress->lock)
{
    const struct sector_state *state = &stress->sectors[sector];
    uint64_t stamp = stamp_of(data), operation = stamp >> 32;
    bool is_changing = state->changing > 0 || state->change_end > began, is_allowed;

    if (stamp == 0)
        is_allowed = state->zeroing > 0 || state->zero_end >= floor;
    else if (stamp == UINT64_MAX)
        is_allowed = is_changing;
    else
        is_allowed = (stamp & UINT32_MAX) == sector && operation > 0 &&
                     operation < OPERATIONS_MAX && stress->ends[operation] >= floor;
    if (!is_allowed)
        give_up("%s: sector %llu holds 0x%llx, which ended at %llu; overwritten since %llu",
                stress->shape->name, (unsigned long long)sector, (unsigned long long)stamp,
                (unsigned long long)(operation < OPERATIONS_MAX ? stress->ends[operation] : 0),
                (unsigned long long)floor);
}

static void begin_change(struct stress *stress, uint64_t first, uint64_t count, bool is_zeroing)
{
    lock_acquire(&stress->lock);
    for (uint64_t i = 0; i < count; i++) {
        stress->sectors[first + i].changing++;
        stress->sectors[first + i].zeroing += is_zeroing;
    }
    lock_release(&stress->lock);
}

/* A discard may do nothing, so that it makes nothing else stale: it has no start. */
static void end_change(struct stress *stress, uint64_t first, uint64_t count, bool is_zeroing,
                       uint64_t began)
{
    lock_acquire(&stress->lock);
    uint64_t end = ticket(stress);
    for (uint64_t i = 0; i < count; i++) {
        struct sector_state *state = &stress->sectors[first + i];
        state->changing--;
        state->change_end = end;
        state->floor = MAX(state->floor, began);
        if (is_zeroing) {
            state->zeroing--;
            state->zero_end = end;
        }
    }
    lock_release(&stress->lock);
}

static void do_read(struct queue *queue, uint64_t first, uint64_t count)
{
    struct stress *stress = queue->stress;
    bool was_planned = false;
    struct iovec iov = {queue->data, count * SECTOR_BYTES};

    lock_acquire(&stress->lock);
    for (uint64_t i = 0; i < count; i++)
        queue->floors[i] = stress->sectors[first + i].floor;
    uint64_t began = ticket(stress);
    lock_release(&stress->lock);
    if (first % 2 == 0)
        must(planned_read(stress->disk, queue->data, iov.iov_len, first * SECTOR_BYTES,
                          &was_planned));
    else
        must(block_read(stress->disk, &iov, 1, first * SECTOR_BYTES));
    if (was_planned)
        atomic_fetch_add_explicit(&stress->planned, 1, memory_order_relaxed);
    lock_acquire(&stress->lock);
    for (uint64_t i = 0; i < count; i++)
        judge_sector_locked(stress, first + i, queue->floors[i], began,
                            queue->data + i * SECTOR_BYTES);
    lock_release(&stress->lock);
}

static void do_write(struct queue *queue, uint64_t first, uint64_t count)
{
    struct stress *stress = queue->stress;
    uint32_t operation =
        (uint32_t)atomic_fetch_add_explicit(&stress->operations, 1, memory_order_relaxed);
    bool was_planned = false;
    struct iovec iov = {queue->data, count * SECTOR_BYTES};

    if (operation >= OPERATIONS_MAX) {
        atomic_store_explicit(&stress->is_over, true, memory_order_relaxed);
        return;
    }
    lock_acquire(&stress->lock);
    stress->ends[operation] = IN_FLIGHT;
    lock_release(&stress->lock);
    begin_change(stress, first, count, false);
    uint64_t began = ticket(stress);
    for (uint64_t i = 0; i < count; i++)
        stamp_sector(queue->data + i * SECTOR_BYTES, stamp_for(operation, first + i));
    if (operation % 2 == 0)
        must(planned_write(stress->disk, queue->data, iov.iov_len, first * SECTOR_BYTES,
                           &was_planned));
    else
        must(block_write(stress->disk, &iov, 1, first * SECTOR_BYTES));
    if (was_planned)
        atomic_fetch_add_explicit(&stress->planned, 1, memory_order_relaxed);
    lock_acquire(&stress->lock);
    stress->ends[operation] = ticket(stress);
    lock_release(&stress->lock);
    end_change(stress, first, count, false, began);
}

static void do_zero(struct queue *queue, uint64_t first, uint64_t count, bool is_discard)
{
    struct stress *stress = queue->stress;

    begin_change(stress, first, count, true);
    uint64_t began = ticket(stress);
    if (is_discard)
        must(block_discard(stress->disk, first * SECTOR_BYTES, count * SECTOR_BYTES));
    else
        must(block_write_zeroes(stress->disk, first * SECTOR_BYTES, count * SECTOR_BYTES,
                                began % 2 == 0));
    end_change(stress, first, count, true, is_discard ? 0 : began);
}

static void queue_main(void *argument)
{
    struct queue *queue = argument;
    struct stress *stress = queue->stress;
    struct chance chance = chance_of(chance_setting("FERRY_TEST_SEED", 5) * 16 + queue->index);

    while (!atomic_load_explicit(&stress->is_over, memory_order_relaxed)) {
        uint64_t area = chance_below(&chance, 8) == 0 ? SECTORS : HOT_SECTORS;
        uint64_t count =
            1 + chance_below(&chance, chance_below(&chance, 4) == 0 ? REQUEST_SECTORS : 12);
        uint64_t first = chance_below(&chance, area - count + 1);
        enter(stress);
        switch (chance_below(&chance, 20)) {
        case 0: must(block_flush(stress->disk)); break;
        case 1: do_zero(queue, first, count, false); break;
        case 2: do_zero(queue, first, count, true); break;
        case 3:
        case 4:
        case 5:
        case 6:
        case 7:
        case 8:
        case 9: do_read(queue, first, count); break;
        default: do_write(queue, first, count);
        }
        leave(stress);
    }
}

/* The newest sealed layers are merged, under the queues. */
static void merge(struct stress *stress, const char *newest_sealed)
{
    struct disk_image_name name = {.path = newest_sealed, .format = "qcow2"};
    struct layer_merge_result result;
    unsigned gone = 0;

    ASSERT_OK(layer_merge(&name, MERGE_COUNT, NULL, &result));
    ASSERT_OK(disk_image_swap_layers(stress->disk, newest_sealed, &gone));
    assert_int_equal(gone, MERGE_COUNT - 1);
}

static void checkpoint(struct stress *stress, unsigned layer)
{
    char *overlay = NULL, sealed[sizeof(stress->path)];

    memcpy(sealed, stress->path, sizeof(sealed));
    ASSERT_OK(disk_image_next_overlay(stress->path, &overlay));
    ASSERT_OK(disk_image_create_overlay(overlay, stress->path, "qcow2", DISK_BYTES));
    close_gate(stress);
    ASSERT_OK(disk_image_switch(&stress->disk, stress->path, "qcow2", overlay));
    open_gate(stress);
    (void)snprintf(stress->path, sizeof(stress->path), "%s", overlay);
    free(overlay);
    if (layer % MERGE_EVERY == MERGE_EVERY - 1)
        merge(stress, sealed);
}

static void wait_until(struct stress *stress, uint64_t deadline_ns)
{
    lock_acquire(&stress->lock);
    while (lock_condition_wait_until(&stress->changed, &stress->lock, deadline_ns))
        continue;
    lock_release(&stress->lock);
}

static void create(const char *name, const struct qcow_create_options *options)
{
    char path[160];
    struct host_file *file = NULL;

    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    ASSERT_OK(host_file_from_fd(fd, path, &file));
    ASSERT_OK(options != NULL ? qcow_create(file, options) : host_file_truncate(file, DISK_BYTES));
    host_file_destroy(file);
}

/* Every sector of the base carries the first operation's stamp. */
static void make_base(const struct shape *shape)
{
    static uint8_t data[HOT_SECTORS * SECTOR_BYTES];
    struct qcow_create_options options = {
        .virtual_bytes = DISK_BYTES, .version = 3, .cluster_bits = 12};
    struct iovec iov = {data, sizeof(data)};
    struct block *base = NULL;
    char path[160];

    if (shape->backing_format == NULL)
        return;
    create("base", strcmp(shape->backing_format, "raw") == 0 ? NULL : &options);
    (void)snprintf(path, sizeof(path), "%s/base", folder);
    ASSERT_OK(disk_image_open(path, shape->backing_format, DISK_IMAGE_WRITABLE, &base));
    for (uint64_t first = 0; first < SECTORS; first += HOT_SECTORS) {
        for (uint64_t i = 0; i < HOT_SECTORS; i++)
            stamp_sector(data + i * SECTOR_BYTES, stamp_for(BASE_OPERATION, first + i));
        ASSERT_OK(block_write(base, &iov, 1, first * SECTOR_BYTES));
    }
    ASSERT_OK(block_close(base));
}

static void start(struct stress *stress) LOCK_UNCHECKED
{
    const struct shape *shape = stress->shape;

    make_base(shape);
    create("vm.qcow2", &(struct qcow_create_options){
                           .virtual_bytes = DISK_BYTES,
                           .version = 3,
                           .cluster_bits = shape->cluster_bits,
                           .has_extended_l2 = shape->has_extended_l2,
                           .backing_name = shape->backing_format == NULL ? NULL : "base",
                           .backing_format = shape->backing_format,
                       });
    (void)snprintf(stress->path, sizeof(stress->path), "%s/vm.qcow2", folder);
    ASSERT_OK(disk_image_open(stress->path, "qcow2", DISK_IMAGE_WRITABLE, &stress->disk));
    lock_init(&stress->lock, LOCK_TEST);
    lock_condition_init(&stress->changed);
    stress->ends = calloc(OPERATIONS_MAX, sizeof(*stress->ends));
    stress->sectors = calloc(SECTORS, sizeof(*stress->sectors));
    if (stress->ends == NULL || stress->sectors == NULL)
        give_up("no memory");
    atomic_store_explicit(&stress->operations, BASE_OPERATION + 1, memory_order_relaxed);
    if (shape->backing_format != NULL)
        for (uint64_t i = 0; i < SECTORS; i++)
            stress->sectors[i].floor = ticket(stress);
    stress->ends[BASE_OPERATION] = ticket(stress);
}

static void finish(struct stress *stress) LOCK_UNCHECKED
{
    lock_condition_finish(&stress->changed);
    lock_finish(&stress->lock);
    free(stress->ends);
    free(stress->sectors);
}

static void check_layers(const char *name)
{
    char command[256], path[160];

    (void)snprintf(command, sizeof(command), "ls %s/vm*.qcow2 >%s/list", folder, folder);
    assert_int_equal(system(command), 0);
    (void)snprintf(path, sizeof(path), "%s/list", folder);
    FILE *list = fopen(path, "r");
    if (list == NULL) {
        fail_msg("no list of layers");
        return;
    }
    while (fgets(path, sizeof(path), list) != NULL) {
        void *image = NULL;
        size_t len = 0;
        path[strcspn(path, "\n")] = '\0';
        ASSERT_OK(file_read_all(path, 256 * MIB, &image, &len));
        struct qcow_verdict verdict = qcow_checker_run(image, len);
        if (verdict.errors + verdict.leaks > 0)
            fail_msg("%s: %s: %u errors, %u leaks: %s", name, path, verdict.errors, verdict.leaks,
                     verdict.first);
        free(image);
    }
    assert_int_equal(fclose(list), 0);
}

static void read_again(struct stress *stress)
{
    static struct queue queue;

    ASSERT_OK(block_close(stress->disk));
    check_layers(stress->shape->name);
    ASSERT_OK(disk_image_open(stress->path, "qcow2", DISK_IMAGE_READ_ONLY, &stress->disk));
    queue.stress = stress;
    for (uint64_t first = 0; first < SECTORS; first += 128)
        do_read(&queue, first, 128);
    ASSERT_OK(block_close(stress->disk));
}

static void use(const struct shape *shape)
{
    static struct queue queues[QUEUES];
    struct stress stress = {.shape = shape};
    uint64_t now = clock_monotonic_ns(),
             end = now + chance_setting("FERRY_TEST_SECONDS", 2) * 1000000000;
    unsigned layers = 0;

    start(&stress);
    for (unsigned i = 0; i < QUEUES; i++) {
        queues[i].stress = &stress;
        queues[i].index = i;
        ASSERT_OK(thread_create(ROLE_TEST, i, queue_main, &queues[i], &queues[i].thread));
    }
    while (now < end) {
        now += (uint64_t)CHECKPOINT_MS * 1000000;
        wait_until(&stress, now);
        now = MAX(now, clock_monotonic_ns());
        if (shape->has_checkpoints && layers < LAYERS_MAX)
            checkpoint(&stress, layers++);
    }
    atomic_store_explicit(&stress.is_over, true, memory_order_relaxed);
    for (unsigned i = 0; i < QUEUES; i++)
        thread_join(queues[i].thread);
    read_again(&stress);
    print_message("%s: %llu writes, %llu requests were planned, %u checkpoints\n", shape->name,
                  (unsigned long long)stress.operations, (unsigned long long)stress.planned,
                  layers);
    finish(&stress);
}

TEST(queues_share_the_clusters_of_a_plain_image)
{
    use(&(struct shape){.name = "plain", .cluster_bits = 16});
}

TEST(queues_copy_from_a_raw_base)
{
    use(&(struct shape){.name = "overlay", .cluster_bits = 16, .backing_format = "raw"});
}

TEST(queues_share_subclusters)
{
    use(&(struct shape){.name = "subclusters",
                        .cluster_bits = 17,
                        .has_extended_l2 = true,
                        .backing_format = "qcow2"});
}

TEST(layers_are_frozen_and_merged_under_the_queues)
{
    use(&(struct shape){.name = "layers",
                        .cluster_bits = 17,
                        .has_extended_l2 = true,
                        .backing_format = "qcow2",
                        .has_checkpoints = true});
}

static int make_folder(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof(folder), "%s/disk_stress_test.XXXXXX",
                   access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    return mkdtemp(folder) == NULL;
}

static int empty_folder(void **state)
{
    char command[128];

    (void)state;
    (void)snprintf(command, sizeof(command), "rm -f %s/*", folder);
    return system(command);
}

static int remove_folder(void **state)
{
    (void)state;
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(queues_share_the_clusters_of_a_plain_image, empty_folder),
        cmocka_unit_test_teardown(queues_copy_from_a_raw_base, empty_folder),
        cmocka_unit_test_teardown(queues_share_subclusters, empty_folder),
        cmocka_unit_test_teardown(layers_are_frozen_and_merged_under_the_queues, empty_folder),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
