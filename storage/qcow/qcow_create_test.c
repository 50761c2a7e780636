/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_create_test.c - empty images of all kinds, judged by QEMU's tools: no error, no leak, what
 * was asked for is what they see, and what they write to it is read back.
 */
#include <fcntl.h>
#include <sys/stat.h>

#include "base/checked_math.h"
#include "base/limits.h"
#include "base/unit_test.h"
#include "storage/host_file.h"
#include "storage/qcow/qcow_create.h"
#include "storage/testing/qemu_oracle.h"

static struct qemu_oracle oracle;

static struct err *create(const struct qcow_create_options *options)
{
    struct host_file *file = NULL;

    int fd = open(oracle.disk, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    ASSERT_OK(host_file_from_fd(fd, oracle.disk, &file));
    struct err *err = qcow_create(file, options);
    host_file_destroy(file);
    return err;
}

static struct stat status_of_image(void)
{
    struct stat status;

    assert_int_equal(stat(oracle.disk, &status), 0);
    return status;
}

/* Creates, has it checked, written in three places, checked again and read. */
static void satisfies_qemu(const struct qcow_create_options *options)
{
    unsigned long long last = (options->virtual_bytes - 512) & ~511ull;

    ASSERT_OK(create(options));
    if (qemu_oracle_run(&oracle, "qemu-img check -q -f qcow2 disk.qcow2") != 0 ||
        qemu_oracle_run(
            &oracle,
            "qemu-io -f qcow2 -t writeback -c 'write -P 1 0 512' -c 'write -P 2 %llu 512' "
            "-c 'write -P 3 70k 100k' disk.qcow2",
            last) != 0 ||
        qemu_oracle_run(&oracle, "qemu-img check -q -f qcow2 disk.qcow2") != 0 ||
        qemu_oracle_run(
            &oracle,
            "qemu-io -f qcow2 -c 'read -P 1 0 512' -c 'read -P 0 512 4k' -c 'read -P 2 %llu 512' "
            "-c 'read -P 3 70k 100k' disk.qcow2 | tee read.log && ! grep -q failed read.log",
            last) != 0)
        fail_msg("clusters of 2^%u, version %u, refcounts of %u bits, extended %d, static %d, "
                 "preallocation %d: see %s/last.log",
                 options->cluster_bits, options->version, options->refcount_bits,
                 options->has_extended_l2, options->is_static, (int)options->preallocation,
                 oracle.folder);
}

TEST(every_cluster_size_and_width_satisfies_qemu)
{
    for (unsigned bits = 9; bits <= 21; bits += 3)
        for (unsigned width = 1; width <= 64; width *= 4)
            satisfies_qemu(&(struct qcow_create_options){.virtual_bytes = 40 * MIB + 1536,
                                                         .version = 3,
                                                         .cluster_bits = bits,
                                                         .refcount_bits = width});
    satisfies_qemu(&(struct qcow_create_options){
        .virtual_bytes = 40 * MIB + 1536, .version = 2, .cluster_bits = 16});
}

TEST(extended_and_static_images_satisfy_qemu)
{
    for (unsigned bits = 14; bits <= 21; bits++)
        for (unsigned is_static = 0; is_static <= 1; is_static++)
            satisfies_qemu(&(struct qcow_create_options){.virtual_bytes = 3 * (uint64_t)GIB + 512,
                                                         .version = 3,
                                                         .cluster_bits = bits,
                                                         .has_extended_l2 = true,
                                                         .is_static = is_static != 0});
    satisfies_qemu(&(struct qcow_create_options){.virtual_bytes = (uint64_t)3 << 40,
                                                 .version = 3,
                                                 .cluster_bits = QCOW_STATIC_CLUSTER_BITS,
                                                 .has_extended_l2 = true,
                                                 .is_static = true});
}

TEST(preallocated_images_satisfy_qemu)
{
    for (int how = QCOW_PREALLOCATION_METADATA; how <= QCOW_PREALLOCATION_FULL; how++)
        for (unsigned is_extended = 0; is_extended <= 1; is_extended++)
            satisfies_qemu(
                &(struct qcow_create_options){.virtual_bytes = 40 * MIB + 1536,
                                              .version = 3,
                                              .cluster_bits = 16,
                                              .has_extended_l2 = is_extended != 0,
                                              .preallocation = (enum qcow_preallocation)how});
    assert_true((uint64_t)status_of_image().st_blocks * 512 >= 40 * MIB);
}

TEST(qemu_sees_the_features_that_were_asked_for)
{
    ASSERT_OK(create(&(struct qcow_create_options){.virtual_bytes = 40 * MIB,
                                                   .version = 3,
                                                   .cluster_bits = 17,
                                                   .refcount_bits = 32,
                                                   .has_extended_l2 = true,
                                                   .has_lazy_refcounts = true,
                                                   .compression = QCOW_COMPRESSION_ZSTD,
                                                   .backing_name = "base.raw",
                                                   .backing_format = "raw"}));

    ASSERT_RUN(&oracle, "qemu-img info -U --output=json disk.qcow2 > info.json");
    ASSERT_RUN(&oracle, "grep -q '\"lazy-refcounts\": true' info.json");
    ASSERT_RUN(&oracle, "grep -q '\"extended-l2\": true' info.json");
    ASSERT_RUN(&oracle, "grep -q '\"refcount-bits\": 32' info.json");
    ASSERT_RUN(&oracle, "grep -q '\"compression-type\": \"zstd\"' info.json");
    ASSERT_RUN(&oracle, "grep -q '\"cluster-size\": 131072' info.json");
    ASSERT_RUN(&oracle, "grep -q '\"backing-filename-format\": \"raw\"' info.json");
}

TEST(a_static_image_of_a_large_disk_takes_little_space)
{
    ASSERT_OK(create(&(struct qcow_create_options){.virtual_bytes = (uint64_t)64 << 30,
                                                   .version = 3,
                                                   .cluster_bits = QCOW_STATIC_CLUSTER_BITS,
                                                   .has_extended_l2 = true,
                                                   .is_static = true}));

    struct stat status = status_of_image();
    assert_int_equal(status.st_size, 76 * 128 * KIB);
    assert_true(status.st_blocks * 512 <= (off_t)(64 * KIB));
}

TEST(options_that_contradict_each_other_are_refused)
{
    static const struct qcow_create_options wrong[] = {
        {.virtual_bytes = MIB, .version = 1, .cluster_bits = 16},
        {.virtual_bytes = MIB, .version = 3, .cluster_bits = 8},
        {.virtual_bytes = MIB, .version = 3, .cluster_bits = 22},
        {.virtual_bytes = MIB + 1, .version = 3, .cluster_bits = 16},
        {.virtual_bytes = MIB, .version = 3, .cluster_bits = 16, .refcount_bits = 12},
        {.virtual_bytes = MIB, .version = 3, .cluster_bits = 16, .refcount_bits = 128},
        {.virtual_bytes = MIB, .version = 3, .cluster_bits = 13, .has_extended_l2 = true},
        {.virtual_bytes = MIB, .version = 2, .cluster_bits = 16, .has_extended_l2 = true},
        {.virtual_bytes = MIB, .version = 2, .cluster_bits = 16, .has_lazy_refcounts = true},
        {.virtual_bytes = MIB, .version = 2, .cluster_bits = 16, .refcount_bits = 8},
        {.virtual_bytes = (uint64_t)1 << 45, .version = 3, .cluster_bits = 9},
        {.virtual_bytes = MIB,
         .version = 3,
         .cluster_bits = 16,
         .preallocation = QCOW_PREALLOCATION_METADATA,
         .backing_name = "base",
         .backing_format = "raw"},
    };

    for (size_t i = 0; i < ARRAY_COUNT(wrong); i++) {
        assert_fails(create(&wrong[i]), ERR_INVALID);
        assert_int_equal(status_of_image().st_size, 0);
    }
}

static int make_folder(void **state)
{
    (void)state;
    return qemu_oracle_init_in(&oracle, "/tmp", "qcow_create_test");
}

static int remove_folder(void **state)
{
    (void)state;
    return qemu_oracle_finish(&oracle);
}

int main(void)
{
    const struct CMUnitTest without[] = {
        cmocka_unit_test(a_static_image_of_a_large_disk_takes_little_space),
        cmocka_unit_test(options_that_contradict_each_other_are_refused),
    };
    const struct CMUnitTest with_qemu[] = {
        cmocka_unit_test(every_cluster_size_and_width_satisfies_qemu),
        cmocka_unit_test(extended_and_static_images_satisfy_qemu),
        cmocka_unit_test(preallocated_images_satisfy_qemu),
        cmocka_unit_test(qemu_sees_the_features_that_were_asked_for),
    };

    bool has_qemu = qemu_oracle_has("qemu-img qemu-io");
    int failed = cmocka_run_group_tests(without, make_folder, has_qemu ? NULL : remove_folder);
    if (failed != 0 || has_qemu)
        return failed != 0 ? failed : cmocka_run_group_tests(with_qemu, NULL, remove_folder);
    return QEMU_ORACLE_SKIPPED;
}
