/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_hostile_test.c - images that somebody broke on purpose.
 *
 * Small images of all kinds are mutated (image_mutator.h), opened, read, written, checked and
 * repaired. Whatever is in them: no crash (run it under the sanitizers too), no endless work,
 * bounded memory, no write to an image that is refused or opened for reading. An image that the
 * independent checker calls sound stays sound when it is written; one that was repaired satisfies
 * it. What our check says of a sample is compared with qemu-img's verdict.
 *
 * FERRY_TEST_SEED selects other mutations, FERRY_TEST_IMAGES how many of each seed image;
 * FERRY_TEST_KEEP leaves the files of a failure, FERRY_TEST_VERBOSE tells of different verdicts.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "base/checked_math.h"
#include "base/limits.h"
#include "base/unit_test.h"
#include "storage/block_memory.h"
#include "storage/qcow/qcow_check.h"
#include "storage/qcow/qcow_header.h"
#include "storage/qcow/qcow_image.h"
#include "storage/qcow/qcow_repair.h"
#include "storage/testing/chance.h"
#include "storage/testing/host_file_fake.h"
#include "storage/testing/image_mutator.h"
#include "storage/testing/qcow_checker.h"
#include "storage/testing/qemu_oracle.h"

#define MUTATIONS_MAX    4u
#define QEMU_EVERY       25u
#define SECONDS_MAX      2u
#define RESIDENT_KIB_MAX (512u << 10)
#define WINDOW_BYTES     (16u << 10)

static const struct seed {
    const char *name;
    const char *commands; /* leave disk.qcow2 */
} seeds[] = {
    {"plain", "qemu-img create -f qcow2 -o cluster_size=512 disk.qcow2 100k"},
    {"version 2", "qemu-img create -f qcow2 -o cluster_size=512,compat=0.10 disk.qcow2 100k"},
    {"one bit", "qemu-img create -f qcow2 -o cluster_size=4k,refcount_bits=1 disk.qcow2 100k"},
    {"wide", "qemu-img create -f qcow2 -o cluster_size=512,refcount_bits=64,lazy_refcounts=on "
             "disk.qcow2 60k"},
    {"subclusters", "qemu-img create -f qcow2 -o cluster_size=16k,extended_l2=on disk.qcow2 200k"},
    {"overlay", "touch base; qemu-img create -f qcow2 -b base -F raw -o cluster_size=512 "
                "disk.qcow2 100k"},
    {"snapshots",
     "qemu-img create -f qcow2 -o cluster_size=512 disk.qcow2 60k; qemu-io -c 'write "
     "-P 7 0 9k' disk.qcow2; qemu-img snapshot -c one disk.qcow2; qemu-io -c 'write -P "
     "8 3k 9k' disk.qcow2; qemu-img snapshot -c two disk.qcow2"},
    {"bitmaps",
     "qemu-img create -f qcow2 -o cluster_size=4k disk.qcow2 100k; qemu-img bitmap --add "
     "disk.qcow2 b0; qemu-img bitmap --add -g 512 disk.qcow2 b1"},
};

static const struct seed packed_seeds[] = {
    {"deflate", "qemu-img convert -c -O qcow2 -o cluster_size=4k plain disk.qcow2"},
    {"zstd", "qemu-img convert -c -O qcow2 -o cluster_size=512,compression_type=zstd plain "
             "disk.qcow2"},
    {"packed subclusters",
     "qemu-img convert -c -O qcow2 -o cluster_size=16k,extended_l2=on plain disk.qcow2"},
};

#define FILL                                                                                       \
    "qemu-io -d unmap -c 'write -P 1 0 5k' -c 'write -P 2 20k 9k' -c 'write -z 22k 2k' -c "        \
    "'discard 24k 1k' -c 'write -P 3 50k 3k' disk.qcow2"

static struct totals {
    uint64_t images, refused, read_only, sound, repaired, shown_to_qemu, stricter;
} totals;

static struct qemu_oracle oracle;
static struct chance chance;

/* For whoever looks into a failure, with FERRY_TEST_KEEP set. */
static void keep_failed(const struct image_bytes *before, const struct image_bytes *after)
{
    static unsigned failures;
    char name[64];

    (void)snprintf(name, sizeof(name), "failed%u-before.qcow2", ++failures);
    qemu_oracle_store(&oracle, name, before->data, before->len);
    (void)snprintf(name, sizeof(name), "failed%u-after.qcow2", failures);
    qemu_oracle_store(&oracle, name, after->data, after->len);
    print_message("failed images are kept in %s\n", oracle.folder);
}

static struct block *make_backing(void)
{
    struct block *backing = NULL;

    ASSERT_OK(block_memory_create(64 * KIB, &backing));
    return backing;
}

/* The start, the end, and two places between. */
static void use(struct block *disk)
{
    static uint8_t data[WINDOW_BYTES];

    for (unsigned i = 0; i < 4 && disk->virtual_bytes > 0; i++) {
        uint64_t offset = align_down(disk->virtual_bytes / 3 * i, 512);
        offset = MIN(offset, disk->virtual_bytes - 512);
        size_t len = (size_t)MIN((uint64_t)WINDOW_BYTES, disk->virtual_bytes - offset);
        struct iovec iov = {data, len};
        err_free(block_read(disk, &iov, 1, offset));
        if (disk->is_read_only)
            continue;
        iov.iov_len = MIN(len, (size_t)1536);
        err_free(block_write(disk, &iov, 1, offset));
        err_free(block_write_zeroes(disk, offset + 512, len / 2 - 256, true));
        err_free(block_discard(disk, offset, len));
        err_free(block_flush(disk));
    }
}

/* Gives the file as it is afterwards. True when the image was taken. */
static bool open_and_use(const struct image_bytes *image, bool is_read_only,
                         struct image_bytes *out_after)
{
    struct host_file *file = NULL;
    struct block *disk = NULL;

    ASSERT_OK(host_file_fake_create(image->data, image->len, &file));
    host_file_fake_keep(file, (void **)&out_after->data, &out_after->len);
    struct err *err = qcow_image_open(file, is_read_only, &disk);
    bool is_taken = err == NULL;
    err_free(err);
    if (is_taken) {
        const struct qcow_header *header = qcow_image_header(disk);
        if (header->backing_name[0] != '\0')
            qcow_image_set_backing(disk, make_backing());
        use(disk);
        err_free(block_close(disk));
    }
    bool must_stay = is_read_only || !is_taken;
    if (must_stay &&
        (out_after->len != image->len || memcmp(out_after->data, image->data, image->len) != 0))
        fail_msg("an image was changed that was %s", is_taken ? "opened for reading" : "refused");
    return is_taken;
}

static struct err *check(const struct image_bytes *image, struct qcow_check_report *out_report)
{
    struct host_file *file = NULL;

    ASSERT_OK(host_file_fake_create(image->data, image->len, &file));
    struct err *err = qcow_check(file, NULL, out_report);
    host_file_destroy(file);
    return err;
}

static void repair(const struct image_bytes *image)
{
    struct host_file *file = NULL;
    struct qcow_repair_report report = {0};
    struct image_bytes after = {.len = 0};

    ASSERT_OK(host_file_fake_create(image->data, image->len, &file));
    host_file_fake_keep(file, (void **)&after.data, &after.len);
    struct err *err = qcow_repair(file, QCOW_REPAIR_ALL, NULL, &report);
    host_file_destroy(file);
    if (err == NULL && report.after.errors == 0) {
        struct qcow_verdict verdict = qcow_checker_run(after.data, after.len);
        if (verdict.errors > 0 || verdict.leaks != report.after.leaks) {
            keep_failed(image, &after);
            fail_msg("repaired, and still %u errors and %u leaks: %s", verdict.errors,
                     verdict.leaks, verdict.first);
        }
        totals.repaired++;
    }
    err_free(err);
    image_fixture_finish(&after);
}

/* qemu-img's exit codes: 0 sound, 1 can not be checked, 2 errors, 3 leaks. */
static int verdict_of(const struct image_bytes *image)
{
    struct qcow_check_report report;
    struct err *err = check(image, &report);
    int verdict = err != NULL ? 1 : report.errors > 0 ? 2 : report.leaks > 0 ? 3 : 0;

    err_free(err);
    return verdict;
}

static bool is_usable(int verdict)
{
    return verdict == 0 || verdict == 3;
}

/* Refusing to check and finding errors are the same: not usable. Beyond that we are stricter in
 * what docs/formats/qcow2.md lists, and never more lenient. */
static void compare_with_qemu(const struct image_bytes *image, const char *name)
{
    int ours = verdict_of(image);

    qemu_oracle_store(&oracle, "broken.qcow2", image->data, image->len);
    int theirs = qemu_oracle_run(&oracle, "timeout 20 qemu-img check -f qcow2 broken.qcow2");
    totals.shown_to_qemu++;
    if (ours == theirs || (!is_usable(ours) && !is_usable(theirs)))
        return;
    totals.stricter++;
    bool is_stricter = !is_usable(ours) && is_usable(theirs);
    if (!is_stricter || getenv("FERRY_TEST_VERBOSE") != NULL) {
        keep_failed(image, image);
        print_message("%s: we say %d, qemu-img %d\n", name, ours, theirs);
    }
    assert_true(is_stricter);
}

/* Of this process: others may keep the machine busy. */
static uint64_t processor_ns(void)
{
    struct timespec time;

    assert_int_equal(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time), 0);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static void try_image(const struct image_bytes *image, const char *name)
{
    uint64_t began = processor_ns();
    struct qcow_verdict verdict = qcow_checker_run(image->data, image->len);
    struct image_bytes after = {.len = 0};

    totals.images++;
    if (open_and_use(image, true, &after))
        totals.read_only++;
    else
        totals.refused++;
    image_fixture_finish(&after);
    if (open_and_use(image, false, &after) && verdict.errors == 0 && !verdict.is_dirty) {
        struct qcow_verdict then = qcow_checker_run(after.data, after.len);
        if (then.errors > 0) {
            keep_failed(image, &after);
            fail_msg("%s: sound before it was used, and then: %s", name, then.first);
        }
        totals.sound++;
    }
    image_fixture_finish(&after);
    repair(image);
    if ((processor_ns() - began) / 1000000000 >= SECONDS_MAX) {
        keep_failed(image, image);
        fail_msg("%s: an image took longer than %u seconds", name, SECONDS_MAX);
    }
    if (totals.images % QEMU_EVERY == 0)
        compare_with_qemu(image, name);
}

static void try_seed(const struct seed *seed, bool is_filled)
{
    uint64_t count = chance_setting("FERRY_TEST_IMAGES", 300);

    (void)qemu_oracle_run(&oracle, "rm -f disk.qcow2");
    ASSERT_RUN(&oracle, "%s", seed->commands);
    if (is_filled)
        ASSERT_RUN(&oracle, FILL);
    struct image_bytes good = qemu_oracle_load(&oracle, "disk.qcow2");
    try_image(&good, seed->name);
    for (uint64_t i = 0; i < count; i++) {
        struct image_bytes broken = image_fixture_copy(&good);
        for (uint64_t j = 0; j <= chance_below(&chance, MUTATIONS_MAX); j++)
            image_mutate(&chance, broken.data, &broken.len);
        try_image(&broken, seed->name);
        image_fixture_finish(&broken);
    }
    image_fixture_finish(&good);
}

TEST(broken_images_do_no_harm)
{
    for (size_t i = 0; i < ARRAY_COUNT(seeds); i++)
        try_seed(&seeds[i], true);
}

TEST(broken_packed_images_do_no_harm)
{
    ASSERT_RUN(&oracle, "qemu-img create -f raw plain 64k && qemu-io -f raw -c 'write -P 4 0 9k' "
                        "-c 'write -P 5 30k 9k' plain");
    for (size_t i = 0; i < ARRAY_COUNT(packed_seeds); i++)
        try_seed(&packed_seeds[i], false);
}

TEST(a_file_cut_short_anywhere_does_no_harm)
{
    (void)qemu_oracle_run(&oracle, "rm -f disk.qcow2");
    ASSERT_RUN(&oracle, "%s", seeds[6].commands);
    struct image_bytes image = qemu_oracle_load(&oracle, "disk.qcow2");
    for (; image.len >= 512; image.len -= 512)
        try_image(&image, "cut short");
    image_fixture_finish(&image);
}

TEST(memory_stays_bounded)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip(); /* they need more */
#endif
    struct rusage usage;
    assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
    assert_true(usage.ru_maxrss < RESIDENT_KIB_MAX);
}

static int make_folder(void **state)
{
    (void)state;
    chance = chance_of(chance_setting("FERRY_TEST_SEED", 11));
    return qemu_oracle_init(&oracle, "qcow_hostile_test");
}

static int remove_folder(void **state)
{
    (void)state;
    print_message("%llu images: %llu refused, %llu read, %llu sound ones written, %llu repaired, "
                  "%llu shown to qemu-img, of which we refuse %llu that it takes\n",
                  (unsigned long long)totals.images, (unsigned long long)totals.refused,
                  (unsigned long long)totals.read_only, (unsigned long long)totals.sound,
                  (unsigned long long)totals.repaired, (unsigned long long)totals.shown_to_qemu,
                  (unsigned long long)totals.stricter);
    if (getenv("FERRY_TEST_KEEP") != NULL)
        return 0;
    return qemu_oracle_finish(&oracle);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(broken_images_do_no_harm),
        cmocka_unit_test(broken_packed_images_do_no_harm),
        cmocka_unit_test(a_file_cut_short_anywhere_does_no_harm),
        cmocka_unit_test(memory_stays_bounded),
    };

    if (!qemu_oracle_has("qemu-img qemu-io"))
        return QEMU_ORACLE_SKIPPED;
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
