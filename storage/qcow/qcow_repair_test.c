/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "base/limits.h"
#include "base/unit_test.h"
#include "storage/block.h"
#include "storage/qcow/qcow_create.h"
#include "storage/qcow/qcow_image.h"
#include "storage/qcow/qcow_repair.h"
#include "storage/testing/host_file_fake.h"
#include "storage/testing/host_file_recorder.h"
#include "storage/testing/image_fixture.h"
#include "storage/testing/qcow_checker.h"

#define COPIED       ((uint64_t)1 << 63)
#define SECTOR_BYTES 512u
#define DISK_BYTES   (2 * MIB)

static struct image_bytes make(unsigned bits, unsigned width, bool is_extended)
{
    return image_fixture_make(&(struct qcow_create_options){.virtual_bytes = DISK_BYTES,
                                                            .version = 3,
                                                            .cluster_bits = bits,
                                                            .refcount_bits = width,
                                                            .has_extended_l2 = is_extended});
}

/* Repairs in place; says how it went. */
static struct err *repair(struct image_bytes *image, enum qcow_repair_scope scope,
                          struct qcow_repair_report *report)
{
    struct host_file *file = NULL;
    void *data = NULL;

    ASSERT_OK(host_file_fake_create(image->data, image->len, &file));
    host_file_fake_keep(file, &data, &image->len);
    struct err *err = qcow_repair(file, scope, NULL, report);
    host_file_destroy(file);
    free(image->data);
    image->data = data;
    return err;
}

/* The guest sees the same in both. */
static void assert_same_content(const struct image_bytes *a, const struct image_bytes *b)
{
    uint8_t left[SECTOR_BYTES], right[SECTOR_BYTES];

    for (uint64_t at = 0; at < DISK_BYTES; at += SECTOR_BYTES) {
        enum qcow_sector kind = qcow_checker_read(a->data, a->len, at, left);
        assert_int_equal(kind, qcow_checker_read(b->data, b->len, at, right));
        if (kind == QCOW_SECTOR_DATA)
            assert_memory_equal(left, right, SECTOR_BYTES);
    }
}

static void assert_sound(const struct image_bytes *image)
{
    struct qcow_verdict verdict = qcow_checker_run(image->data, image->len);

    if (verdict.errors != 0 || verdict.leaks != 0 || verdict.is_dirty || verdict.is_corrupt)
        fail_msg("%u errors, %u leaks: %s", verdict.errors, verdict.leaks, verdict.first);
}

static void zero_counts(struct image_bytes *image, unsigned bits)
{
    memset(image->data + image_fixture_block(image), 0, (size_t)1 << bits);
}

static void raise_counts(struct image_bytes *image)
{
    uint64_t block = image_fixture_block(image);

    for (unsigned i = 0; i < 40; i += 2)
        image->data[block + i + 1] += (uint8_t)(i % 3);
}

static void clear_flags(struct image_bytes *image)
{
    uint64_t l1 = image_fixture_l1(image), l2 = image_fixture_l2(image);

    image_fixture_put(image, l1, image_fixture_get(image, l1) & ~COPIED);
    for (unsigned i = 0; i < 8; i++)
        image_fixture_put(image, l2 + i * 8, image_fixture_get(image, l2 + i * 8) & ~COPIED);
}

static void set_lone_flags(struct image_bytes *image)
{
    uint64_t l1 = image_fixture_l1(image), l2 = image_fixture_l2(image);
    unsigned count = 0;

    for (uint64_t at = l2; at < l2 + 512 * 8; at += 8)
        if (image_fixture_get(image, at) == 0 && count++ < 3)
            image_fixture_put(image, at, COPIED);
    assert_true(count > 2);
    for (uint64_t at = l1; image_fixture_get(image, 36) >> 32 > (at - l1) / 8; at += 8)
        if (image_fixture_get(image, at) == 0)
            image_fixture_put(image, at, COPIED);
}

static void forget_blocks(struct image_bytes *image)
{
    image_fixture_put(image, image_fixture_get(image, 48), 0);
}

static void point_block_nowhere(struct image_bytes *image)
{
    image_fixture_put(image, image_fixture_get(image, 48), (uint64_t)1 << 40);
}

static void mark_dirty(struct image_bytes *image)
{
    image_fixture_put(image, 72, image_fixture_get(image, 72) | 3);
    raise_counts(image);
    forget_blocks(image);
}

static void claim_bitmaps(struct image_bytes *image)
{
    image_fixture_put(image, 88, 1);
}

TEST(all_that_can_be_put_right_is)
{
    static void (*const damages[])(struct image_bytes *) = {
        raise_counts, clear_flags,   forget_blocks, point_block_nowhere,
        mark_dirty,   claim_bitmaps, set_lone_flags};

    for (size_t i = 0; i < ARRAY_COUNT(damages); i++) {
        struct image_bytes image = make(12, 16, false);
        struct image_bytes broken = image_fixture_copy(&image);
        struct qcow_repair_report report;

        damages[i](&broken);
        assert_true(qcow_checker_run(broken.data, broken.len).errors +
                        qcow_checker_run(broken.data, broken.len).leaks >
                    0);
        ASSERT_OK(repair(&broken, QCOW_REPAIR_ALL, &report));

        assert_true(report.before.errors + report.before.leaks > 0);
        assert_int_equal(report.after.errors + report.after.leaks, 0);
        assert_sound(&broken);
        assert_same_content(&image, &broken);
        image_fixture_finish(&image);
        image_fixture_finish(&broken);
    }
}

TEST(counts_are_rebuilt_in_images_of_every_kind)
{
    for (unsigned bits = 9; bits <= 18; bits += 3)
        for (unsigned width = 1; width <= 64; width *= 2) {
            struct image_bytes image = make(bits, width, bits >= 15);
            struct image_bytes broken = image_fixture_copy(&image);
            struct qcow_repair_report report;

            zero_counts(&broken, bits);
            ASSERT_OK(repair(&broken, QCOW_REPAIR_ALL, &report));
            assert_sound(&broken);
            assert_same_content(&image, &broken);
            image_fixture_finish(&image);
            image_fixture_finish(&broken);
        }
}

TEST(leaks_alone_are_not_touched_while_there_are_errors)
{
    struct image_bytes image = make(12, 16, false);
    struct qcow_repair_report report;

    raise_counts(&image);
    ASSERT_OK(repair(&image, QCOW_REPAIR_LEAKS, &report));
    assert_sound(&image);

    zero_counts(&image, 12);
    assert_fails(repair(&image, QCOW_REPAIR_LEAKS, &report), ERR_STATE);
    image_fixture_finish(&image);
}

TEST(what_can_not_be_put_right_stays_marked)
{
    struct image_bytes image = make(12, 16, false);
    struct qcow_repair_report report;

    image_fixture_put(&image, 72, 2);
    image_fixture_put(&image, image_fixture_l2(&image), (uint64_t)1 << 57);
    ASSERT_OK(repair(&image, QCOW_REPAIR_ALL, &report));

    assert_int_equal(report.after.errors, 1);
    assert_true(report.after.is_corrupt);
    assert_int_equal(image_fixture_get(&image, 72), 2);
    image_fixture_finish(&image);
}

TEST(a_dirty_image_is_repaired_when_it_is_opened_for_writing)
{
    struct image_bytes image = make(12, 16, false), broken = image_fixture_copy(&image);
    struct host_file *file = NULL;
    struct block *disk = NULL;
    void *data = NULL;

    image_fixture_put(&broken, 72, 1);
    forget_blocks(&broken);
    ASSERT_OK(host_file_fake_create(broken.data, broken.len, &file));
    image_fixture_finish(&broken);
    host_file_fake_keep(file, &data, &broken.len);
    ASSERT_OK(qcow_image_open(file, false, &disk));
    ASSERT_OK(block_close(disk));
    broken.data = data;

    assert_sound(&broken);
    assert_same_content(&image, &broken);
    image_fixture_finish(&image);
    image_fixture_finish(&broken);
}

TEST(a_dirty_image_that_is_only_read_is_left_as_it_is)
{
    struct image_bytes image = make(12, 16, false);
    struct host_file *file = NULL;
    struct block *disk = NULL;

    mark_dirty(&image);
    image_fixture_put(&image, 72, 1);
    ASSERT_OK(host_file_fake_create(image.data, image.len, &file));
    ASSERT_OK(qcow_image_open(file, true, &disk));
    assert_int_equal(host_file_fake_operations(file), 0);
    ASSERT_OK(block_close(disk));
    image_fixture_finish(&image);
}

/* Each prefix of what a repair writes, the last write torn in every way between sectors. */
static void cut(const struct image_bytes *before, const struct record_log *log, size_t count,
                uint64_t keep)
{
    size_t len = before->len;
    struct image_bytes state;

    for (size_t i = 0; i < log->count; i++)
        len = MAX(len, (size_t)(log->records[i].offset + log->records[i].len));
    state = (struct image_bytes){.data = calloc(1, len), .len = len};
    assert_non_null(state.data);
    memcpy(state.data, before->data, before->len);
    for (size_t i = 0; i <= count && i < log->count; i++) {
        const struct record *record = &log->records[i];
        if (record->kind != RECORD_WRITE)
            continue;
        for (uint64_t at = 0; at < record->len; at += SECTOR_BYTES)
            if (i < count || (keep >> (at / SECTOR_BYTES % 64) & 1) != 0)
                memcpy(state.data + record->offset + at, record->data + at,
                       MIN(SECTOR_BYTES, record->len - at));
    }

    struct qcow_repair_report report;
    assert_same_content(before, &state);
    ASSERT_OK(repair(&state, QCOW_REPAIR_ALL, &report));
    assert_int_equal(report.after.errors + report.after.leaks, 0);
    assert_same_content(before, &state);
    image_fixture_finish(&state);
}

TEST(a_power_cut_while_repairing_harms_nothing)
{
    struct image_bytes image = make(12, 16, false);
    struct host_file *file = NULL, *recorder = NULL;
    struct record_log log = {.records = NULL};
    struct qcow_repair_report report;

    mark_dirty(&image);
    clear_flags(&image);
    ASSERT_OK(host_file_fake_create(image.data, image.len, &file));
    ASSERT_OK(host_file_recorder_create(file, &log, &recorder));
    ASSERT_OK(qcow_repair(recorder, QCOW_REPAIR_ALL, NULL, &report));
    host_file_destroy(recorder);

    assert_true(log.count > 5);
    for (size_t i = 0; i <= log.count; i++)
        for (unsigned keep = 0; keep < 4; keep++)
            cut(&image, &log, i, keep == 0 ? 0 : UINT64_MAX / (keep + 1) * keep);
    record_log_finish(&log);
    image_fixture_finish(&image);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_that_can_be_put_right_is),
        cmocka_unit_test(counts_are_rebuilt_in_images_of_every_kind),
        cmocka_unit_test(leaks_alone_are_not_touched_while_there_are_errors),
        cmocka_unit_test(what_can_not_be_put_right_stays_marked),
        cmocka_unit_test(a_dirty_image_is_repaired_when_it_is_opened_for_writing),
        cmocka_unit_test(a_dirty_image_that_is_only_read_is_left_as_it_is),
        cmocka_unit_test(a_power_cut_while_repairing_harms_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
