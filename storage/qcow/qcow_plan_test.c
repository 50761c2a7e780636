/* SPDX-License-Identifier: Apache-2.0 */
/* qcow_plan_test.c - planned requests next to blocking ones. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked_math.h"
#include "base/thread.h"
#include "base/unit_test.h"
#include "storage/block_memory.h"
#include "storage/qcow/qcow_bitmap.h"
#include "storage/qcow/qcow_create.h"
#include "storage/qcow/qcow_header.h"
#include "storage/qcow/qcow_image.h"
#include "storage/qcow/qcow_l2_entry.h"
#include "storage/qcow/qcow_snapshot.h"
#include "storage/testing/host_file_fake.h"
#include "storage/testing/planned_request.h"

#define DISK_BYTES (4 * MIB)
#define CLUSTER    (64 * KIB)

static struct block *make(bool has_extended_l2, bool has_backing)
{
    struct qcow_create_options options = {
        .virtual_bytes = DISK_BYTES,
        .version = 3,
        .cluster_bits = 16,
        .has_extended_l2 = has_extended_l2,
        .backing_name = has_backing ? "below" : NULL,
        .backing_format = has_backing ? "raw" : NULL,
    };
    struct host_file *file = NULL;
    struct block *block = NULL;

    ASSERT_OK(host_file_fake_create(NULL, 0, &file));
    ASSERT_OK(qcow_create(file, &options));
    ASSERT_OK(qcow_image_open(file, false, &block));
    return block;
}

static void write_blocking(struct block *disk, uint64_t offset, size_t len, int value)
{
    uint8_t *data = malloc(len);
    struct iovec iov = {data, len};

    assert_non_null(data);
    memset(data, value, len);
    ASSERT_OK(block_write(disk, &iov, 1, offset));
    free(data);
}

TEST(data_and_zeros_and_new_places_are_planned)
{
    struct block *disk = make(false, false);
    uint8_t data[8192];
    bool is_planned = false;

    ASSERT_OK(planned_read(disk, data, sizeof(data), 0, &is_planned));
    assert_true(is_planned); /* no table: zeros */
    ASSERT_OK(planned_write(disk, data, sizeof(data), 0, &is_planned));
    assert_false(is_planned);
    write_blocking(disk, 0, CLUSTER, 7);
    memset(data, 8, sizeof(data));
    ASSERT_OK(planned_write(disk, data, sizeof(data), 4096, &is_planned));
    assert_true(is_planned);

    struct iovec iov = {data, sizeof(data)};
    ASSERT_OK(block_read(disk, &iov, 1, 8192));
    assert_int_equal(data[4095], 8);
    assert_int_equal(data[4096], 7);
    ASSERT_OK(planned_read(disk, data, sizeof(data), CLUSTER - 4096, &is_planned));
    assert_true(is_planned);
    assert_int_equal(data[4095], 7);
    assert_int_equal(data[4096], 0);
    ASSERT_OK(planned_write(disk, data, sizeof(data), CLUSTER - 4096, &is_planned));
    assert_true(is_planned); /* the second half gets a new place, with zeros behind */
    ASSERT_OK(planned_write(disk, data, sizeof(data), DISK_BYTES - CLUSTER, &is_planned));
    assert_true(is_planned);
    ASSERT_OK(planned_read(disk, data, sizeof(data), CLUSTER, &is_planned));
    assert_int_equal(data[0], 0);
    ASSERT_OK(block_close(disk));
}

TEST(a_write_whose_surroundings_are_to_be_copied_is_not_planned)
{
    struct block *disk = make(true, true), *backing = NULL;
    uint8_t data[4096] = {1};
    bool is_planned = true;

    ASSERT_OK(block_memory_create(DISK_BYTES, &backing));
    qcow_image_set_backing(disk, backing);
    write_blocking(disk, 0, 512, 7);
    ASSERT_OK(planned_write(disk, data, 512, CLUSTER, &is_planned));
    assert_false(is_planned);
    ASSERT_OK(planned_write(disk, data, 2048, 2 * CLUSTER, &is_planned));
    assert_true(is_planned); /* a subcluster */
    ASSERT_OK(planned_write(disk, data, 4096, 2 * CLUSTER + 4096, &is_planned));
    assert_true(is_planned); /* two more in the same cluster */
    ASSERT_OK(block_close(disk));
}

TEST(what_was_planned_and_did_not_arrive_is_as_before)
{
    struct block *disk = make(false, false);
    struct block_plan plan;
    uint8_t data[512];
    bool is_planned = true;
    uint64_t place;

    write_blocking(disk, 0, CLUSTER, 7);
    assert_true(block_plan(disk, BLOCK_REQUEST_CHANGE, CLUSTER, CLUSTER, &plan));
    assert_int_equal(plan.count, 1);
    place = plan.extents[0].offset;
    block_plan_finish(&plan, BLOCK_NOT_TRANSFERRED);
    ASSERT_OK(planned_read(disk, data, sizeof(data), CLUSTER, &is_planned));
    assert_int_equal(data[0], 0);
    assert_true(block_plan(disk, BLOCK_REQUEST_CHANGE, CLUSTER, CLUSTER, &plan));
    assert_int_equal(plan.extents[0].offset, place); /* given back, and taken again */
    block_plan_finish(&plan, BLOCK_NOT_TRANSFERRED);
    ASSERT_OK(block_close(disk));
}

/* An image that is opened has no table in memory until a blocking call has asked for one. */
TEST(the_first_look_at_a_table_is_not_planned)
{
    struct block *disk = make(false, false);
    void *bytes = NULL;
    size_t len = 0;
    struct host_file *file = NULL;
    uint8_t data[512];
    bool is_planned = true;
    struct block_plan plan;
    write_blocking(disk, 0, CLUSTER, 7);
    assert_true(block_plan(disk, BLOCK_REQUEST_READ, 0, 512, &plan));
    host_file_fake_keep(plan.extents[0].file, &bytes, &len);
    block_plan_finish(&plan, BLOCK_TRANSFERRED);
    ASSERT_OK(block_close(disk));

    ASSERT_OK(host_file_fake_create(bytes, len, &file));
    ASSERT_OK(qcow_image_open(file, true, &disk));
    ASSERT_OK(planned_read(disk, data, sizeof(data), 0, &is_planned));
    assert_false(is_planned);
    assert_true(block_plan(disk, BLOCK_REQUEST_READ, 0, 512, &plan));
    assert_null(plan.extents[0].hold); /* nobody changes a read-only image */
    block_plan_finish(&plan, BLOCK_TRANSFERRED);
    ASSERT_OK(block_close(disk));
    free(bytes);
}

static atomic_bool has_cleared; /* a flag alone */

static void clear(void *argument)
{
    struct block *disk = argument;

    assert_null(block_write_zeroes(disk, 0, CLUSTER, true));
    assert_null(block_flush(disk));
    atomic_store(&has_cleared, true);
}

TEST(a_cluster_is_not_given_away_under_a_planned_request)
{
    struct block *disk = make(false, false);
    struct block_plan plan;
    struct thread *thread = NULL;
    uint8_t data[512];
    bool is_planned = true;
    write_blocking(disk, 0, CLUSTER, 7);

    assert_true(block_plan(disk, BLOCK_REQUEST_READ, 0, 512, &plan));
    ASSERT_OK(thread_create(ROLE_TEST, 0, clear, disk, &thread));
    for (unsigned i = 0; i < 100; i++)
        write_blocking(disk, 2 * CLUSTER, 512, 1);
    assert_false(atomic_load(&has_cleared));
    ASSERT_OK(host_file_read_bytes(plan.extents[0].file, data, 512, plan.extents[0].offset));
    assert_int_equal(data[0], 7);
    block_plan_finish(&plan, BLOCK_TRANSFERRED);
    thread_join(thread);

    assert_true(atomic_load(&has_cleared));
    ASSERT_OK(planned_read(disk, data, sizeof(data), 0, &is_planned));
    assert_true(is_planned);
    assert_int_equal(data[0], 0);
    ASSERT_OK(block_close(disk));
}

/* An image that was filled with 7 up to `filled`, closed, changed as a whole, and opened again. */
static struct block *make_changed(unsigned version, uint64_t filled,
                                  struct err *(*change)(struct host_file *file))
{
    const struct qcow_create_options options = {
        .virtual_bytes = DISK_BYTES, .version = version, .cluster_bits = 16};
    struct host_file *file = NULL;
    struct block *disk = NULL;
    void *bytes = NULL;
    size_t len = 0;

    ASSERT_OK(host_file_fake_create(NULL, 0, &file));
    host_file_fake_keep(file, &bytes, &len);
    ASSERT_OK(qcow_create(file, &options));
    ASSERT_OK(qcow_image_open(file, false, &disk));
    write_blocking(disk, 0, filled, 7);
    ASSERT_OK(block_close(disk));
    ASSERT_OK(host_file_fake_create(bytes, len, &file));
    free(bytes);
    host_file_fake_keep(file, &bytes, &len);
    ASSERT_OK(change(file));
    host_file_destroy(file);
    ASSERT_OK(host_file_fake_create(bytes, len, &file));
    free(bytes);
    ASSERT_OK(qcow_image_open(file, false, &disk));
    return disk;
}

static struct err *take_snapshot(struct host_file *file)
{
    return qcow_snapshot_create(file, "one", 0);
}

static struct err *add_bitmap(struct host_file *file)
{
    return qcow_bitmap_add(file, "map", 16, true);
}

static bool is_write_planned(struct block *disk, uint64_t offset)
{
    uint8_t data[512] = {9};
    bool is_planned = false;

    ASSERT_OK(planned_write(disk, data, sizeof(data), offset, &is_planned));
    return is_planned;
}

TEST(with_a_snapshot_reads_are_planned_and_writes_where_nothing_is_shared)
{
    struct block *disk = make_changed(3, 4 * CLUSTER, take_snapshot);
    uint8_t data[512];
    bool is_planned = true;

    ASSERT_OK(planned_read(disk, data, sizeof(data), 0, &is_planned));
    assert_false(is_planned); /* the table has to be read */
    ASSERT_OK(planned_read(disk, data, sizeof(data), CLUSTER, &is_planned));
    assert_true(is_planned);
    assert_int_equal(data[0], 7);

    assert_false(is_write_planned(disk, 0)); /* moves to a place of its own, with the table */
    assert_true(is_write_planned(disk, 0));
    assert_true(is_write_planned(disk, 512));
    assert_false(is_write_planned(disk, CLUSTER));
    assert_true(is_write_planned(disk, CLUSTER));
    assert_true(is_write_planned(disk, 5 * CLUSTER)); /* a new place */
    ASSERT_OK(planned_read(disk, data, sizeof(data), 0, &is_planned));
    assert_true(is_planned);
    assert_int_equal(data[0], 9);
    ASSERT_OK(block_close(disk));
}

static uint64_t set_copied(struct host_file *file, uint64_t at)
{
    uint8_t field[8] = {0};
    struct reader in = reader_of(field, sizeof(field));
    struct writer out = writer_of(field, sizeof(field));

    ASSERT_OK(host_file_read_bytes(file, field, sizeof(field), at));
    uint64_t entry = reader_be64(&in);
    writer_be64(&out, entry | QCOW_ENTRY_COPIED);
    ASSERT_OK(host_file_write_bytes(file, field, sizeof(field), at));
    return entry & QCOW_OFFSET_MASK;
}

/* As a cut in another program's operation leaves it: what is shared says that it is not. */
static struct err *take_snapshot_and_lie(struct host_file *file)
{
    struct qcow_header header;

    ASSERT_OK(take_snapshot(file));
    ASSERT_OK(qcow_header_read(file, &header));
    uint64_t table = set_copied(file, header.l1_offset);
    assert_int_not_equal(set_copied(file, table), 0);
    return NULL;
}

TEST(a_write_is_not_planned_where_a_count_contradicts_the_flag)
{
    struct block *disk = make_changed(3, CLUSTER, take_snapshot_and_lie);
    struct block_plan plan;
    uint8_t data[512];
    struct iovec iov = {data, sizeof(data)};
    void *bytes = NULL;
    size_t len = 0;
    struct host_file *file = NULL;

    ASSERT_OK(planned_read(disk, data, sizeof(data), 0, NULL));
    assert_true(block_plan(disk, BLOCK_REQUEST_READ, 0, 512, &plan));
    host_file_fake_keep(plan.extents[0].file, &bytes, &len);
    block_plan_finish(&plan, BLOCK_TRANSFERRED);
    assert_false(is_write_planned(disk, 0));
    assert_true(is_write_planned(disk, 512));
    ASSERT_OK(block_close(disk));

    ASSERT_OK(host_file_fake_create(bytes, len, &file));
    free(bytes);
    ASSERT_OK(qcow_image_open(file, true, &disk));
    ASSERT_OK(qcow_image_show_snapshot(disk, "one"));
    ASSERT_OK(block_read(disk, &iov, 1, 0));
    assert_int_equal(data[0], 7);
    ASSERT_OK(block_close(disk));
}

static struct err *change_nothing(struct host_file *file)
{
    (void)file;
    return NULL;
}

/* Flags of version 2 are believed only with the count. */
TEST(a_write_is_not_planned_before_its_count_is_in_memory)
{
    struct block *disk = make_changed(2, CLUSTER, change_nothing);
    uint8_t data[512];

    ASSERT_OK(planned_read(disk, data, sizeof(data), 0, NULL));
    assert_false(is_write_planned(disk, 0));
    assert_true(is_write_planned(disk, 512));
    ASSERT_OK(block_close(disk));
}

static bool says_in_use(struct host_file *file)
{
    struct qcow_header header;
    struct qcow_bitmap_set set;

    ASSERT_OK(qcow_header_read(file, &header));
    ASSERT_OK(qcow_bitmap_set_load(file, &header, &set));
    assert_int_equal(set.count, 1);
    bool is_in_use = (set.list[0].flags & QCOW_BITMAP_IN_USE) != 0;
    qcow_bitmap_set_finish(&set);
    return is_in_use;
}

TEST(with_a_bitmap_writes_are_planned_once_it_is_marked_in_use)
{
    struct block *disk = make_changed(3, 2 * CLUSTER, add_bitmap);
    struct block_plan plan;
    uint8_t data[512];

    ASSERT_OK(planned_read(disk, data, sizeof(data), 0, NULL));
    assert_true(block_plan(disk, BLOCK_REQUEST_READ, 0, 512, &plan));
    struct host_file *file = plan.extents[0].file;
    block_plan_finish(&plan, BLOCK_TRANSFERRED);
    assert_false(block_plan(disk, BLOCK_REQUEST_CHANGE, 0, 512, &plan));
    assert_false(says_in_use(file));
    assert_false(is_write_planned(disk, 0));
    assert_true(says_in_use(file));
    assert_true(is_write_planned(disk, CLUSTER));

    ASSERT_OK(qcow_image_seal(disk)); /* saves it */
    assert_false(says_in_use(file));
    qcow_image_unseal(disk);
    assert_false(block_plan(disk, BLOCK_REQUEST_CHANGE, 0, 512, &plan));
    ASSERT_OK(block_close(disk));
}

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static void change_at_random(struct block *disk, uint8_t *model, uint32_t *random)
{
    size_t len = 512 * ((size_t)1 + next_random(random) % 300);
    uint64_t offset = next_random(random) % (DISK_BYTES / 512) * 512;
    int value = (int)(next_random(random) % 255) + 1;

    len = (size_t)MIN(len, DISK_BYTES - offset);
    if (next_random(random) % 5 == 0) {
        ASSERT_OK(block_write_zeroes(disk, offset, len, next_random(random) % 2 == 0));
        memset(model + offset, 0, len);
        return;
    }
    memset(model + offset, value, len);
    ASSERT_OK(planned_write(disk, model + offset, len, offset, NULL));
}

static void compare_at_random(bool has_extended_l2, bool has_backing)
{
    static uint8_t model[DISK_BYTES], data[DISK_BYTES];
    struct block *disk = make(has_extended_l2, has_backing), *backing = NULL;
    uint32_t random = 3, planned = 0;

    memset(model, 0, sizeof(model));
    if (has_backing) {
        ASSERT_OK(block_memory_create(DISK_BYTES, &backing));
        memset(block_memory_bytes(backing), 9, DISK_BYTES);
        memset(model, 9, sizeof(model));
        qcow_image_set_backing(disk, backing);
    }
    for (unsigned round = 0; round < 300; round++) {
        bool is_planned = false;
        change_at_random(disk, model, &random);
        uint64_t offset = next_random(&random) % (DISK_BYTES / 512) * 512;
        size_t len = (size_t)MIN(512 * (1 + next_random(&random) % 200), DISK_BYTES - offset);
        ASSERT_OK(planned_read(disk, data, len, offset, &is_planned));
        assert_memory_equal(data, model + offset, len);
        planned += is_planned;
    }
    struct iovec iov = {data, DISK_BYTES};
    ASSERT_OK(block_read(disk, &iov, 1, 0));
    assert_memory_equal(data, model, DISK_BYTES);
    assert_true(planned > 50);
    ASSERT_OK(block_close(disk));
}

TEST(planned_and_blocking_requests_agree)
{
    compare_at_random(false, false);
    compare_at_random(true, false);
    compare_at_random(false, true);
    compare_at_random(true, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(data_and_zeros_and_new_places_are_planned),
        cmocka_unit_test(a_write_whose_surroundings_are_to_be_copied_is_not_planned),
        cmocka_unit_test(what_was_planned_and_did_not_arrive_is_as_before),
        cmocka_unit_test(the_first_look_at_a_table_is_not_planned),
        cmocka_unit_test(a_cluster_is_not_given_away_under_a_planned_request),
        cmocka_unit_test(with_a_snapshot_reads_are_planned_and_writes_where_nothing_is_shared),
        cmocka_unit_test(a_write_is_not_planned_where_a_count_contradicts_the_flag),
        cmocka_unit_test(a_write_is_not_planned_before_its_count_is_in_memory),
        cmocka_unit_test(with_a_bitmap_writes_are_planned_once_it_is_marked_in_use),
        cmocka_unit_test(planned_and_blocking_requests_agree),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
