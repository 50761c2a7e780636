/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_checker_test.c - does the checker accept what QEMU makes, read it as QEMU wrote it, and find
 * every kind of fault?
 */
#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "base/limits.h"
#include "base/unit_test.h"
#include "storage/testing/chance.h"
#include "storage/testing/qcow_checker.h"
#include "storage/testing/qemu_oracle.h"

#define GUEST_BYTES (4u * MIB)

static struct qemu_oracle oracle;

static uint64_t get(const struct image_bytes *image, uint64_t offset, unsigned bytes)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < bytes; i++)
        value = value << 8 | image->data[offset + i];
    return value;
}

static void put(const struct image_bytes *image, uint64_t offset, unsigned bytes, uint64_t value)
{
    for (unsigned i = 0; i < bytes; i++)
        image->data[offset + i] = (uint8_t)(value >> 8 * (bytes - 1 - i));
}

/* The image must pass, and hold what QEMU's raw copy of it holds. */
static void assert_clean(const char *what, const struct qcow_view *view, const char *raw)
{
    struct image_bytes expected = qemu_oracle_load(&oracle, raw);
    size_t sectors = expected.len / 512;
    uint8_t *data = malloc(expected.len);
    enum qcow_sector *kinds = calloc(sectors, sizeof(*kinds));

    if (data == NULL || kinds == NULL) {
        fail_msg("no memory");
        return;
    }
    assert_int_equal(expected.len, view->virtual_bytes);
    qcow_view_read(view, 0, sectors, data, kinds);
    for (size_t i = 0; i < sectors; i++)
        if (kinds[i] == QCOW_SECTOR_BROKEN)
            fail_msg("%s: sector %zu is broken", what, i);
    if (memcmp(data, expected.data, expected.len) != 0)
        fail_msg("%s: other content than QEMU reads", what);
    free(data);
    free(kinds);
    image_fixture_finish(&expected);
}

static void try_image(const char *options, const char *snapshot)
{
    struct qcow_view view;
    struct image_bytes image = qemu_oracle_load(&oracle, "disk.qcow2");
    struct qcow_verdict verdict = qcow_checker_run(image.data, image.len);

    if (verdict.errors + verdict.leaks > 0)
        fail_msg("%s: %u errors, %u leaks: %s", options, verdict.errors, verdict.leaks,
                 verdict.first);
    ASSERT_RUN(&oracle, "qemu-img convert -f qcow2 -O raw disk.qcow2 disk.raw");
    assert_true(qcow_checker_view(image.data, image.len, &view));
    assert_clean(options, &view, "disk.raw");
    if (snapshot != NULL) {
        ASSERT_RUN(&oracle,
                   "qemu-img convert -f qcow2 -O raw -l snapshot.name=%s disk.qcow2 disk.raw",
                   snapshot);
        assert_true(qcow_checker_snapshot_view(image.data, image.len, 0, &view));
        assert_string_equal(view.name, snapshot);
        assert_clean(options, &view, "disk.raw");
    }
    image_fixture_finish(&image);
}

static void write_some(unsigned seed)
{
    ASSERT_RUN(&oracle,
               "qemu-io -f qcow2 -t writeback -c 'write -P %u 3k 70k' -c 'write -P %u 1000k 9k' "
               "-c 'write -z 20k 24k' -c 'write -z -u 192k 128k' -c 'discard 1000k 64k' "
               "-c 'write -P %u 3000k 200k' -c 'write -P %u 4095k 1k' disk.qcow2",
               seed, seed + 1, seed + 2, seed + 3);
}

TEST(images_of_all_shapes_are_accepted_and_read)
{
    static const char *const options[] = {
        "compat=0.10",
        "compat=0.10,cluster_size=512",
        "cluster_size=512,refcount_bits=64",
        "cluster_size=4k,refcount_bits=1",
        "cluster_size=16k,refcount_bits=2,extended_l2=on",
        "cluster_size=64k,refcount_bits=4",
        "cluster_size=2M,refcount_bits=8",
        "cluster_size=128k,extended_l2=on,lazy_refcounts=on",
        "preallocation=metadata",
        "preallocation=falloc,cluster_size=4k,refcount_bits=32",
        "extended_l2=on,preallocation=metadata",
    };

    for (size_t i = 0; i < ARRAY_COUNT(options); i++) {
        bool has_snapshot = strstr(options[i], "refcount_bits=1") == NULL;
        (void)qemu_oracle_run(&oracle, "rm -f disk.*");
        ASSERT_RUN(&oracle, "qemu-img create -f qcow2 -o %s disk.qcow2 %llu", options[i],
                   (unsigned long long)GUEST_BYTES);
        write_some(10);
        if (has_snapshot)
            ASSERT_RUN(&oracle, "qemu-img snapshot -c first disk.qcow2");
        write_some(20);
        try_image(options[i], has_snapshot ? "first" : NULL);
    }
}

TEST(compressed_images_are_accepted_and_read)
{
    static const char *const options[] = {"compat=0.10",      "compression_type=zstd",
                                          "cluster_size=512", "cluster_size=4k",
                                          "cluster_size=2M",  "extended_l2=on"};

    for (size_t i = 0; i < ARRAY_COUNT(options); i++) {
        (void)qemu_oracle_run(&oracle, "rm -f disk.* base.*");
        ASSERT_RUN(&oracle, "qemu-img create -f raw base.raw %llu",
                   (unsigned long long)GUEST_BYTES);
        ASSERT_RUN(&oracle,
                   "for i in $(seq 0 63); do cmd=\"$cmd -c 'write -P $i $((i * 60))k 50k'\"; done; "
                   "eval qemu-io -f raw $cmd base.raw");
        ASSERT_RUN(&oracle, "qemu-img convert -f raw -O qcow2 -c -o %s base.raw disk.qcow2",
                   options[i]);
        try_image(options[i], NULL);
        ASSERT_RUN(&oracle, "qemu-img snapshot -c first disk.qcow2");
        write_some(100);
        try_image(options[i], "first");
    }
}

TEST(bitmaps_are_accepted)
{
    struct image_bytes image;

    (void)qemu_oracle_run(&oracle, "rm -f disk.*");
    ASSERT_RUN(&oracle, "qemu-img create -f qcow2 disk.qcow2 %llu",
               (unsigned long long)GUEST_BYTES);
    ASSERT_RUN(&oracle,
               "qemu-img bitmap --add disk.qcow2 b0 && qemu-img bitmap --add -g 512 disk.qcow2 b1");
    write_some(1);
    try_image("bitmaps", NULL);

    image = qemu_oracle_load(&oracle, "disk.qcow2");
    put(&image, 88, 8, 0);
    struct qcow_verdict verdict = qcow_checker_run(image.data, image.len);
    assert_int_equal(verdict.errors, 0);
    assert_true(verdict.leaks > 0);
    image_fixture_finish(&image);
}

/* Where things are in the image that is broken below. */
struct places {
    uint64_t l1, l2, l2_of_snapshot, data, reftable, block;
};

static uint64_t count_place(const struct places *places, uint64_t host)
{
    return places->block + (host >> 16) * 2;
}

struct fault {
    const char *name;
    void (*apply)(const struct image_bytes *image, const struct places *places);
    bool is_hazard;
    bool is_seen_by_qemu;
};

static void low_count(const struct image_bytes *image, const struct places *at)
{
    put(image, count_place(at, at->data), 2, 0);
}

static void low_count_of_table(const struct image_bytes *image, const struct places *at)
{
    put(image, count_place(at, at->l2), 2, 0);
}

static void low_count_of_snapshot(const struct image_bytes *image, const struct places *at)
{
    put(image, count_place(at, at->l2_of_snapshot), 2, 0);
}

static void copied_missing(const struct image_bytes *image, const struct places *at)
{
    put(image, at->l2, 8, at->data);
}

static void copied_in_l1_missing(const struct image_bytes *image, const struct places *at)
{
    put(image, at->l1, 8, at->l2);
}

static void shared_in_place(const struct image_bytes *image, const struct places *at)
{
    put(image, at->l2 + 8, 8, at->data | (uint64_t)1 << 63);
}

static void shared_with_count(const struct image_bytes *image, const struct places *at)
{
    put(image, at->l2 + 8, 8, at->data | (uint64_t)1 << 63);
    put(image, count_place(at, at->data), 2, 2);
}

static void data_in_header(const struct image_bytes *image, const struct places *at)
{
    put(image, at->l2 + 8, 8, 0x10000);
}

static void data_in_l2(const struct image_bytes *image, const struct places *at)
{
    put(image, at->l2 + 8, 8, at->l2);
    put(image, count_place(at, at->l2), 2, 2);
    put(image, at->l1, 8, at->l2);
}

static void behind_the_end(const struct image_bytes *image, const struct places *at)
{
    put(image, at->l2, 8, (uint64_t)1 << 63 | align_up(image->len, 65536) << 4);
}

static void not_aligned(const struct image_bytes *image, const struct places *at)
{
    put(image, at->l2, 8, (uint64_t)1 << 63 | (at->data + 512));
}

static void reserved_bit(const struct image_bytes *image, const struct places *at)
{
    put(image, at->l2, 8, (uint64_t)1 << 63 | at->data | 2);
}

static void reserved_bit_in_l1(const struct image_bytes *image, const struct places *at)
{
    put(image, at->l1, 8, (uint64_t)1 << 63 | at->l2 | 1);
}

static void table_not_aligned(const struct image_bytes *image, const struct places *at)
{
    put(image, at->l1, 8, (uint64_t)1 << 63 | (at->l2 + 1024));
}

static void block_not_aligned(const struct image_bytes *image, const struct places *at)
{
    put(image, at->reftable, 8, at->block + 512);
}

static void block_twice(const struct image_bytes *image, const struct places *at)
{
    put(image, at->reftable + 8, 8, at->block);
}

static void copied_compressed(const struct image_bytes *image, const struct places *at)
{
    put(image, at->l2, 8, (uint64_t)3 << 62 | at->data);
}

static void snapshot_table_outside(const struct image_bytes *image, const struct places *at)
{
    (void)at;
    put(image, 64, 8, (uint64_t)1 << 40);
}

static void snapshot_extra_short(const struct image_bytes *image, const struct places *at)
{
    (void)at;
    put(image, get(image, 64, 8) + 36, 4, 8);
}

static void snapshot_l1_not_aligned(const struct image_bytes *image, const struct places *at)
{
    (void)at;
    put(image, get(image, 64, 8), 8, get(image, get(image, 64, 8), 8) + 512);
}

static void bitmaps_without_any(const struct image_bytes *image, const struct places *at)
{
    (void)at;
    put(image, 88, 8, 1);
}

static const struct fault faults[] = {
    {"count of data too low", low_count, false, true},
    {"count of a table too low", low_count_of_table, false, true},
    {"count of a snapshot's table too low", low_count_of_snapshot, false, true},
    {"not marked as copied", copied_missing, false, true},
    {"not marked as copied in L1", copied_in_l1_missing, false, true},
    {"shared and copied", shared_in_place, true, true},
    {"shared and copied with the right count", shared_with_count, true, true},
    {"data in the refcount table", data_in_header, false, true},
    {"data in its table, with the right count", data_in_l2, false, false},
    {"data behind the end", behind_the_end, false, true},
    {"data not aligned", not_aligned, false, true},
    {"reserved bit", reserved_bit, false, true},
    {"reserved bit in L1", reserved_bit_in_l1, false, true},
    {"L2 table not aligned", table_not_aligned, false, true},
    {"block not aligned", block_not_aligned, false, true},
    {"block twice", block_twice, false, true},
    {"compressed and copied", copied_compressed, false, true},
    {"snapshot table outside", snapshot_table_outside, false, true},
    {"snapshot without its size", snapshot_extra_short, false, true},
    {"snapshot's L1 not aligned", snapshot_l1_not_aligned, false, true},
    {"bitmaps without any", bitmaps_without_any, false, false},
};

TEST(every_kind_of_fault_is_found)
{
    (void)qemu_oracle_run(&oracle, "rm -f disk.*");
    ASSERT_RUN(&oracle, "qemu-img create -f qcow2 disk.qcow2 %llu",
               (unsigned long long)GUEST_BYTES);
    ASSERT_RUN(&oracle, "qemu-io -f qcow2 -c 'write -P 5 0 64k' disk.qcow2");
    ASSERT_RUN(&oracle, "qemu-img snapshot -c first disk.qcow2");
    ASSERT_RUN(&oracle, "qemu-io -f qcow2 -c 'write -P 6 0 64k' disk.qcow2");
    struct image_bytes good = qemu_oracle_load(&oracle, "disk.qcow2");
    uint64_t mask = 0x00fffffffffffe00u;
    struct places places = {.l1 = get(&good, 40, 8), .reftable = get(&good, 48, 8)};
    places.l2 = get(&good, places.l1, 8) & mask;
    places.data = get(&good, places.l2, 8) & mask;
    places.block = get(&good, places.reftable, 8);
    places.l2_of_snapshot = get(&good, get(&good, get(&good, 64, 8), 8), 8) & mask;
    assert_int_equal(qcow_checker_run(good.data, good.len).errors, 0);

    for (size_t i = 0; i < ARRAY_COUNT(faults); i++) {
        struct image_bytes broken = {malloc(good.len), good.len};
        assert_non_null(broken.data);
        memcpy(broken.data, good.data, good.len);
        faults[i].apply(&broken, &places);
        struct qcow_verdict verdict = qcow_checker_run(broken.data, broken.len);
        if (verdict.errors == 0 || verdict.is_refused)
            fail_msg("%s: not found", faults[i].name);
        if ((verdict.hazards > 0) != faults[i].is_hazard)
            fail_msg("%s: %u hazards", faults[i].name, verdict.hazards);
        qemu_oracle_store(&oracle, "broken.qcow2", broken.data, broken.len);
        int check = qemu_oracle_run(&oracle, "qemu-img check -f qcow2 broken.qcow2");
        if ((check != 0) != faults[i].is_seen_by_qemu)
            fail_msg("%s: qemu-img check exits with %d", faults[i].name, check);
        image_fixture_finish(&broken);
    }
    image_fixture_finish(&good);
}

TEST(subclusters_that_contradict_each_other_are_found)
{
    (void)qemu_oracle_run(&oracle, "rm -f disk.*");
    ASSERT_RUN(&oracle, "qemu-img create -f qcow2 -o extended_l2=on disk.qcow2 %llu",
               (unsigned long long)GUEST_BYTES);
    ASSERT_RUN(&oracle, "qemu-io -f qcow2 -c 'write -P 5 0 8k' -c 'write -z 8k 8k' disk.qcow2");
    struct image_bytes image = qemu_oracle_load(&oracle, "disk.qcow2");
    uint64_t l2 = get(&image, get(&image, 40, 8), 8) & 0x00fffffffffffe00u;
    uint64_t bitmap = get(&image, l2 + 8, 8);
    assert_int_equal(qcow_checker_run(image.data, image.len).errors, 0);

    put(&image, l2 + 8, 8, bitmap | (uint64_t)1 << 32);
    assert_true(qcow_checker_run(image.data, image.len).errors > 0);
    put(&image, l2 + 8, 8, bitmap);
    put(&image, l2 + 24, 8, 1);
    assert_true(qcow_checker_run(image.data, image.len).errors > 0);
    image_fixture_finish(&image);
}

TEST(leaks_are_counted_and_are_no_errors)
{
    (void)qemu_oracle_run(&oracle, "rm -f disk.*");
    ASSERT_RUN(&oracle, "qemu-img create -f qcow2 -o refcount_bits=2 disk.qcow2 %llu",
               (unsigned long long)GUEST_BYTES);
    ASSERT_RUN(&oracle, "qemu-io -f qcow2 -c 'write -P 5 0 300k' disk.qcow2");
    struct image_bytes image = qemu_oracle_load(&oracle, "disk.qcow2");
    uint64_t l2 = get(&image, get(&image, 40, 8), 8) & 0x00fffffffffffe00u;
    put(&image, l2, 8, 0);
    put(&image, l2 + 8, 8, 1);

    struct qcow_verdict verdict = qcow_checker_run(image.data, image.len);

    assert_int_equal(verdict.errors, 0);
    assert_int_equal(verdict.leaks, 2);
    image_fixture_finish(&image);
}

/* Every truncation and many garbled bytes: no crash, no endless loop (the sanitizers watch). */
TEST(garbage_is_survived)
{
    struct chance chance = chance_of(0);

    (void)qemu_oracle_run(&oracle, "rm -f disk.*");
    ASSERT_RUN(&oracle, "qemu-img create -f qcow2 -o cluster_size=512 disk.qcow2 100k");
    ASSERT_RUN(&oracle, "qemu-io -f qcow2 -c 'write -P 5 0 30k' disk.qcow2");
    ASSERT_RUN(&oracle, "qemu-img snapshot -c first disk.qcow2");
    struct image_bytes image = qemu_oracle_load(&oracle, "disk.qcow2");
    for (size_t len = 0; len < image.len; len += 61)
        (void)qcow_checker_run(image.data, len);
    for (unsigned i = 0; i < 3000; i++) {
        size_t limit = i % 2 == 0 ? 512 : MAX(image.len, (size_t)512);
        size_t at = (size_t)chance_below(&chance, limit);
        image.data[at] = (uint8_t)(chance.state >> 56);
        (void)qcow_checker_run(image.data, image.len);
        if (i % 16 == 15) {
            image_fixture_finish(&image);
            image = qemu_oracle_load(&oracle, "disk.qcow2");
        }
    }
    image_fixture_finish(&image);
}

static int make_folder(void **state)
{
    (void)state;
    return qemu_oracle_init(&oracle, "qcow_checker_test");
}

static int remove_folder(void **state)
{
    (void)state;
    return qemu_oracle_finish(&oracle);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(images_of_all_shapes_are_accepted_and_read),
        cmocka_unit_test(compressed_images_are_accepted_and_read),
        cmocka_unit_test(bitmaps_are_accepted),
        cmocka_unit_test(every_kind_of_fault_is_found),
        cmocka_unit_test(subclusters_that_contradict_each_other_are_found),
        cmocka_unit_test(leaks_are_counted_and_are_no_errors),
        cmocka_unit_test(garbage_is_survived),
    };

    if (!qemu_oracle_has("qemu-img qemu-io"))
        return QEMU_ORACLE_SKIPPED;
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
