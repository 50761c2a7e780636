/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "base/limits.h"
#include "base/unit_test.h"
#include "storage/qcow/qcow_check.h"
#include "storage/qcow/qcow_create.h"
#include "storage/testing/host_file_fake.h"
#include "storage/testing/image_fixture.h"

#define COPIED     ((uint64_t)1 << 63)
#define COMPRESSED ((uint64_t)1 << 62)

struct listener {
    struct qcow_check_listener base;
    unsigned errors, leaks;
    char last[256];
};

static void found(struct qcow_check_listener *base, enum qcow_finding kind, const char *text)
{
    struct listener *self = CONTAINER_OF(base, struct listener, base);

    if (kind == QCOW_FINDING_ERROR)
        self->errors++;
    else
        self->leaks++;
    (void)strncpy(self->last, text, sizeof(self->last) - 1);
}

static struct qcow_check_report check(const struct image_bytes *image, struct listener *listener)
{
    struct host_file *file = NULL;
    struct qcow_check_report report;

    *listener = (struct listener){.base.found = found};
    ASSERT_OK(host_file_fake_create(image->data, image->len, &file));
    ASSERT_OK(qcow_check(file, &listener->base, &report));
    assert_int_equal(host_file_fake_operations(file), 0); /* nothing was written */
    host_file_destroy(file);
    assert_int_equal(listener->errors, report.errors);
    assert_int_equal(listener->leaks, report.leaks);
    return report;
}

static struct image_bytes plain(void)
{
    return image_fixture_make(
        &(struct qcow_create_options){.virtual_bytes = 2 * MIB, .version = 3, .cluster_bits = 12});
}

TEST(images_of_every_kind_are_sound)
{
    for (unsigned bits = 9; bits <= 21; bits++)
        for (unsigned width = 1; width <= 64; width *= 2)
            for (unsigned is_extended = 0; is_extended <= (bits >= 14); is_extended++) {
                struct listener listener;
                struct image_bytes image = image_fixture_make(
                    &(struct qcow_create_options){.virtual_bytes = 2 * MIB,
                                                  .version = 3,
                                                  .cluster_bits = bits,
                                                  .refcount_bits = width,
                                                  .has_extended_l2 = is_extended != 0});
                struct qcow_check_report report = check(&image, &listener);

                if (report.errors != 0 || report.leaks != 0)
                    fail_msg("clusters of 2^%u, counts of %u bits: %s", bits, width, listener.last);
                assert_int_equal(report.total_clusters, divide_up(2 * MIB, (uint64_t)1 << bits));
                assert_true(report.allocated_clusters > 0);
                image_fixture_finish(&image);
            }
}

TEST(a_count_below_the_references_is_an_error_and_one_above_a_leak)
{
    struct listener listener;
    struct image_bytes image = plain();
    uint64_t block = image_fixture_block(&image);

    image.data[block + 1] = 0; /* of the header */
    struct qcow_check_report report = check(&image, &listener);
    assert_int_equal(report.count_errors, 1);
    assert_int_equal(report.errors, 1);

    image.data[block + 1] = 3;
    report = check(&image, &listener);
    assert_int_equal(report.errors, 0);
    assert_int_equal(report.leaks, 1);
    image_fixture_finish(&image);
}

TEST(flags_must_follow_the_counts)
{
    struct listener listener;
    struct image_bytes image = plain();
    uint64_t l1 = image_fixture_l1(&image), l2 = image_fixture_l2(&image);

    image_fixture_put(&image, l1, image_fixture_get(&image, l1) & ~COPIED);
    image_fixture_put(&image, l2, image_fixture_get(&image, l2) & ~COPIED);
    struct qcow_check_report report = check(&image, &listener);

    assert_int_equal(report.errors, 2);
    assert_int_equal(report.flag_errors, 2);
    image_fixture_finish(&image);
}

TEST(entries_that_can_not_be_are_errors)
{
    struct image_bytes image = plain();
    uint64_t l1 = image_fixture_l1(&image), l2 = image_fixture_l2(&image);
    uint64_t table = image_fixture_get(&image, 48);
    const struct {
        uint64_t at, value;
        const char *part;
    } rows[] = {
        {l2, image_fixture_get(&image, l2 + 8), "count 1 for 2 references"},
        {l2, COPIED, "malformed"},
        {l2, COPIED | 0x1200, "malformed"},
        {l2, (uint64_t)1 << 57, "malformed"},
        {l2, COPIED | (uint64_t)1 << 55, "past the end"},
        {l2, COPIED | l2, "guest data"},
        {l2, COPIED | l1, "the L1 table and guest data"},
        {l2, COPIED | table, "the refcount table and guest data"},
        {l2, COMPRESSED | COPIED | 0x3000, "malformed"},
        {l2, COMPRESSED | (uint64_t)1 << 50, "past the end"},
        {l1, COPIED | 0x1200, "malformed"},
        {l1, 1, "malformed"},
        {l1, COPIED | l1, "the L1 table and an L2 table"},
        {l1, COPIED | (uint64_t)1 << 50, "past the end"},
        {table + 8, 1, "malformed"},
        {table + 8, image_fixture_block(&image), "a refcount block and a refcount block"},
        {table + 8, (uint64_t)1 << 40, "past the end"},
    };

    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        struct listener listener;
        struct image_bytes broken = image_fixture_copy(&image);
        image_fixture_put(&broken, rows[i].at, rows[i].value);
        struct qcow_check_report report = check(&broken, &listener);

        if (report.errors == 0)
            fail_msg("row %zu: no error", i);
        bool is_told = false;
        /* The message that matters may not be the last one. */
        is_told = strstr(listener.last, rows[i].part) != NULL || report.errors + report.leaks > 1;
        if (!is_told)
            fail_msg("row %zu: '%s' instead of '%s'", i, listener.last, rows[i].part);
        image_fixture_finish(&broken);
    }
    image_fixture_finish(&image);
}

TEST(subclusters_that_are_both_or_nowhere_are_errors)
{
    struct image_bytes image = image_fixture_make(&(struct qcow_create_options){
        .virtual_bytes = 2 * MIB, .version = 3, .cluster_bits = 16, .has_extended_l2 = true});
    uint64_t l2 = image_fixture_l2(&image);
    const uint64_t bitmaps[][2] = {
        {image_fixture_get(&image, l2), 0x0000000100000001u}, /* data and zero */
        {0, 1},                                               /* data without a place */
        {image_fixture_get(&image, l2) | 1, 0},               /* the standard entry's zero flag */
    };

    for (size_t i = 0; i < ARRAY_COUNT(bitmaps); i++) {
        struct listener listener;
        struct image_bytes broken = image_fixture_copy(&image);
        image_fixture_put(&broken, l2, bitmaps[i][0]);
        image_fixture_put(&broken, l2 + 8, bitmaps[i][1]);
        assert_true(check(&broken, &listener).errors >= 1);
        image_fixture_finish(&broken);
    }
    image_fixture_finish(&image);
}

TEST(a_file_that_ends_anywhere_is_checked_without_trouble)
{
    struct image_bytes image = plain();
    size_t whole = image.len;

    for (size_t len = 512; len < whole; len += 512) {
        struct host_file *file = NULL;
        struct qcow_check_report report;
        ASSERT_OK(host_file_fake_create(image.data, len, &file));
        struct err *err = qcow_check(file, NULL, &report);
        /* A cluster at the end may be cut short, if what is missing is zeros; not a whole one. */
        if (err == NULL && len + 4096 <= whole)
            assert_true(report.errors > 0);
        err_free(err);
        host_file_destroy(file);
    }
    image_fixture_finish(&image);
}

TEST(what_is_no_image_can_not_be_checked)
{
    static const uint8_t zeroes[4096];
    struct host_file *file = NULL;
    struct qcow_check_report report;

    ASSERT_OK(host_file_fake_create(zeroes, sizeof(zeroes), &file));
    assert_fails(qcow_check(file, NULL, &report), ERR_INVALID);
    host_file_destroy(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(images_of_every_kind_are_sound),
        cmocka_unit_test(a_count_below_the_references_is_an_error_and_one_above_a_leak),
        cmocka_unit_test(flags_must_follow_the_counts),
        cmocka_unit_test(entries_that_can_not_be_are_errors),
        cmocka_unit_test(subclusters_that_are_both_or_nowhere_are_errors),
        cmocka_unit_test(a_file_that_ends_anywhere_is_checked_without_trouble),
        cmocka_unit_test(what_is_no_image_can_not_be_checked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
