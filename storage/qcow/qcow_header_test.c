/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/bytes.h"
#include "base/checked_math.h"
#include "base/unit_test.h"
#include "storage/qcow/qcow_header.h"

#define CLUSTER_BYTES 65536u
#define FILE_BYTES    (4 * CLUSTER_BYTES)

static const struct qcow_header sample = {
    .version = 3,
    .cluster_bits = 16,
    .virtual_bytes = 1 << 30,
    .l1_entries = 2,
    .l1_offset = 3 * CLUSTER_BYTES,
    .refcount_table_offset = CLUSTER_BYTES,
    .refcount_table_clusters = 1,
    .refcount_order = 4,
    .backing_name = "base.img",
    .backing_format = "raw",
};

static uint8_t image[CLUSTER_BYTES];

static void build(const struct qcow_header *header)
{
    ASSERT_OK(qcow_header_build(header, image, sizeof(image)));
}

static void put(size_t offset, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        image[offset + i] = (uint8_t)(value >> (8 * (bytes - 1 - i)));
}

static struct err *parse(struct qcow_header *out_header)
{
    return qcow_header_parse(image, sizeof(image), FILE_BYTES, out_header);
}

static void expect_refused(enum err_kind kind, const char *text)
{
    struct qcow_header header;
    struct err *err = parse(&header);

    assert_non_null(err);
    if (err_kind(err) != kind || strstr(err_message(err), text) == NULL)
        fail_msg("'%s' is not in '%s'", text, err_message(err));
    err_free(err);
}

TEST(what_was_built_is_parsed)
{
    struct qcow_header header;

    build(&sample);
    ASSERT_OK(parse(&header));

    assert_int_equal(header.version, 3);
    assert_int_equal(header.virtual_bytes, sample.virtual_bytes);
    assert_int_equal(header.l1_offset, sample.l1_offset);
    assert_string_equal(header.backing_name, "base.img");
    assert_string_equal(header.backing_format, "raw");
    ASSERT_OK(qcow_header_check_writable(&header));
}

TEST(a_header_cut_short_is_refused_at_every_length)
{
    struct qcow_header header;

    build(&sample);
    for (size_t len = 0; len < QCOW_HEADER_V3_BYTES; len++) {
        struct err *err = qcow_header_parse(image, len, FILE_BYTES, &header);
        assert_non_null(err);
        err_free(err);
    }
}

/* The name comes from whoever made the image, so it is printed with care. */
TEST(an_unknown_feature_is_called_what_the_image_calls_it)
{
    static const uint8_t names[] = {0, 5, 'd', 'a', 'r', 'k', '\n', 'm', 0x1b, 'x'};

    build(&sample);
    put(QCOW_HEADER_AT_INCOMPATIBLE, 32, 8);
    memmove(image + QCOW_HEADER_V3_BYTES + 56, image + QCOW_HEADER_V3_BYTES, 64);
    memset(image + QCOW_HEADER_V3_BYTES, 0, 56);
    put(QCOW_HEADER_V3_BYTES, QCOW_EXTENSION_FEATURE_NAMES, 4);
    put(QCOW_HEADER_V3_BYTES + 4, 48, 4);
    memcpy(image + QCOW_HEADER_V3_BYTES + 8, names, sizeof(names));
    put(8, QCOW_HEADER_V3_BYTES + 56 + 24, 8);
    expect_refused(ERR_INCOMPATIBLE, "unknown feature 'dark?m?x' (bit 5)");
}

/* One field each that is out of bounds. */
TEST(every_bound_is_enforced)
{
    static const struct {
        size_t offset;
        uint64_t value;
        unsigned bytes;
        enum err_kind kind;
        const char *text;
    } rows[] = {
        {0, 0x514649fa, 4, ERR_INVALID, "not a qcow2"},
        {4, 1, 4, ERR_INCOMPATIBLE, "version 1"},
        {4, 4, 4, ERR_INCOMPATIBLE, "version 4"},
        {8, 50, 8, ERR_INVALID, "name lies outside"},
        {8, CLUSTER_BYTES - 4, 8, ERR_INVALID, "name lies outside"},
        {16, 1024, 4, ERR_INVALID, "name lies outside"},
        {20, 8, 4, ERR_INVALID, "clusters of 2^8"},
        {20, 22, 4, ERR_INVALID, "clusters of 2^22"},
        {24, (uint64_t)1 << 57, 8, ERR_INVALID, "virtual size"},
        {32, 1, 4, ERR_INCOMPATIBLE, "encrypted"},
        {32, 2, 4, ERR_INCOMPATIBLE, "encrypted"},
        {36, 1, 4, ERR_INVALID, "too small"},
        {36, (4 << 20) + 1, 4, ERR_INVALID, "too large"},
        {40, 3 * CLUSTER_BYTES + 512, 8, ERR_INVALID, "not aligned"},
        {40, 4 * CLUSTER_BYTES, 8, ERR_INVALID, "past the end"},
        {40, UINT64_MAX - CLUSTER_BYTES + 1, 8, ERR_INVALID, "past the end"},
        {40, 0, 8, ERR_INVALID, "overlaps the header"},
        {40, CLUSTER_BYTES, 8, ERR_INVALID, "overlap"},
        {48, 513, 8, ERR_INVALID, "not aligned"},
        {56, 0, 4, ERR_INVALID, "refcount table of 0"},
        {56, 129, 4, ERR_INVALID, "refcount table of 129"},
        {60, 65537, 4, ERR_INVALID, "internal snapshots"},
        {64, 512, 8, ERR_INVALID, "not aligned"},
        {64, (uint64_t)1 << 60, 8, ERR_INVALID, "past the end of any"},
        {72, 4, 8, ERR_INCOMPATIBLE, "external data file"},
        {72, 16, 8, ERR_INVALID, "too small"}, /* extended: half the reach */
        {72, 32, 8, ERR_INCOMPATIBLE, "unknown feature '?' (bit 5)"},
        {72, 8, 8, ERR_INVALID, "compression type 0"},
        {96, 7, 4, ERR_INVALID, "refcounts of 2^7"},
        {100, 96, 4, ERR_INVALID, "header of 96"},
        {100, 108, 4, ERR_INVALID, "header of 108"},
        {104, 1, 1, ERR_INVALID, "compression type 1"},
        {112, 0x12345678, 4, ERR_INVALID, "extension"},
        {116, 100, 4, ERR_INVALID, "extension"},
    };

    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        build(&sample);
        put(rows[i].offset, rows[i].value, rows[i].bytes);
        if (rows[i].offset == 112)
            put(116, UINT32_MAX, 4);
        expect_refused(rows[i].kind, rows[i].text);
    }
}

TEST(extended_l2_entries_need_clusters_of_16_kib)
{
    struct qcow_header header = sample;

    header.incompatible = QCOW_INCOMPATIBLE_EXTENDED_L2;
    header.l1_entries = 4;
    build(&header);
    ASSERT_OK(parse(&header));
    assert_int_equal(qcow_header_l1_reach_bits(&header), 28);
    assert_int_equal(qcow_header_subcluster_bits(&header), 11);

    put(20, 13, 4);
    expect_refused(ERR_INVALID, "16 KiB");
}

TEST(some_images_may_be_read_but_not_written)
{
    static const struct {
        size_t offset;
        uint64_t value;
        unsigned bytes;
    } rows[] = {{72, 2, 8}, {72, 3, 8}};

    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        struct qcow_header header;
        struct qcow_header alone = sample;
        alone.backing_name[0] = alone.backing_format[0] = '\0';
        build(&alone);
        put(rows[i].offset, rows[i].value, rows[i].bytes);
        ASSERT_OK(parse(&header));
        struct err *err = qcow_header_check_writable(&header);
        assert_non_null(err);
        err_free(err);
    }
}

TEST(a_size_of_broken_sectors_loses_the_last_one)
{
    struct qcow_header header;

    build(&sample);
    put(24, 1000, 8);
    ASSERT_OK(parse(&header));
    assert_int_equal(header.virtual_bytes, 512);
}

TEST(a_backing_name_with_a_zero_byte_is_refused)
{
    struct qcow_header header = sample;

    build(&header);
    ASSERT_OK(parse(&header));
    image[header.backing_offset + 3] = 0;
    expect_refused(ERR_INVALID, "zero byte");
}

TEST(a_name_that_does_not_fit_the_cluster_is_refused)
{
    uint8_t small[512];
    struct qcow_header header = sample;

    memset(header.backing_name, 'x', 500);
    assert_fails(qcow_header_build(&header, small, sizeof(small)), ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_built_is_parsed),
        cmocka_unit_test(a_header_cut_short_is_refused_at_every_length),
        cmocka_unit_test(an_unknown_feature_is_called_what_the_image_calls_it),
        cmocka_unit_test(every_bound_is_enforced),
        cmocka_unit_test(extended_l2_entries_need_clusters_of_16_kib),
        cmocka_unit_test(some_images_may_be_read_but_not_written),
        cmocka_unit_test(a_size_of_broken_sectors_loses_the_last_one),
        cmocka_unit_test(a_backing_name_with_a_zero_byte_is_refused),
        cmocka_unit_test(a_name_that_does_not_fit_the_cluster_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
