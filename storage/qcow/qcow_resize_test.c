/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_resize_test.c - disks that grow and shrink, while snapshots hold what they held. QEMU judges
 * the image after each step, a plain array the content.
 */
#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "base/limits.h"
#include "base/unit_test.h"
#include "storage/block_memory.h"
#include "storage/host_file.h"
#include "storage/qcow/qcow_image.h"
#include "storage/qcow/qcow_resize.h"
#include "storage/qcow/qcow_snapshot.h"
#include "storage/testing/chance.h"
#include "storage/testing/qemu_oracle.h"

#define BYTES_MAX     (6 * MIB)
#define BACKING_BYTES (4 * MIB)
#define SECTOR_BYTES  512u
#define STEPS         14u

static struct qemu_oracle oracle;
static struct chance chance;

struct fixture {
    const char *options;
    bool has_backing;
    struct block *disk;
    uint8_t *model; /* owned; BYTES_MAX */
    uint64_t bytes;
};

static void fill_backing(uint8_t *bytes)
{
    for (uint64_t i = 0; i < BACKING_BYTES; i++)
        bytes[i] = (uint8_t)(i / 700 + 1);
}

static void open_disk(struct fixture *fixture)
{
    struct block *backing = NULL;

    ASSERT_OK(qcow_image_open(qemu_oracle_open_disk(&oracle), false, &fixture->disk));
    if (!fixture->has_backing)
        return;
    ASSERT_OK(block_memory_create(BACKING_BYTES, &backing));
    fill_backing(block_memory_bytes(backing));
    qcow_image_set_backing(fixture->disk, backing);
}

static void write_some(const struct fixture *fixture)
{
    for (unsigned i = 0; i < 6; i++) {
        uint64_t len = (1 + chance_below(&chance, 100)) * SECTOR_BYTES;
        len = MIN(len, fixture->bytes);
        uint64_t offset =
            chance_below(&chance, (fixture->bytes - len) / SECTOR_BYTES + 1) * SECTOR_BYTES;
        if (i == 0)
            offset = fixture->bytes - len;
        struct iovec iov = {fixture->model + offset, len};
        for (uint64_t at = 0; at < len; at++)
            fixture->model[offset + at] = (uint8_t)chance_below(&chance, 256);
        ASSERT_OK(block_write(fixture->disk, &iov, 1, offset));
    }
}

static void resize(struct fixture *fixture)
{
    uint64_t bytes = (1 + chance_below(&chance, BYTES_MAX / SECTOR_BYTES)) * SECTOR_BYTES;

    if (bytes < fixture->bytes)
        memset(fixture->model + bytes, 0, fixture->bytes - bytes);
    ASSERT_OK(qcow_image_resize(fixture->disk, bytes));
    fixture->bytes = bytes;
    assert_int_equal(fixture->disk->virtual_bytes, bytes);
}

static void judge(const struct fixture *fixture)
{
    struct qemu_oracle_verdict verdict = qemu_oracle_judge(&oracle, fixture->model, fixture->bytes);
    int size = qemu_oracle_run(
        &oracle, "qemu-img info -f qcow2 --output=json disk.qcow2 | grep '\"virtual-size\": %llu'",
        (unsigned long long)fixture->bytes);
    if (verdict.check != 0 || verdict.compare != 0 || size != 0)
        fail_msg("'%s', %llu bytes: check %d, compare %d, size %d", fixture->options,
                 (unsigned long long)fixture->bytes, verdict.check, verdict.compare, size);
}

static void try_options(const char *options, bool has_backing)
{
    struct fixture fixture = {.options = options, .has_backing = has_backing, .bytes = 2 * MIB};

    uint8_t *marked = calloc(1, BYTES_MAX);
    uint64_t marked_bytes = 0;

    fixture.model = calloc(1, BYTES_MAX);
    assert_true(fixture.model != NULL && marked != NULL);
    (void)qemu_oracle_run(&oracle, "rm -f *");
    if (has_backing) {
        fill_backing(fixture.model);
        qemu_oracle_store(&oracle, "base.raw", fixture.model, BACKING_BYTES);
        memset(fixture.model + fixture.bytes, 0, BACKING_BYTES - fixture.bytes);
    }
    ASSERT_RUN(&oracle, "qemu-img create -f qcow2 %s -o %s disk.qcow2 2M",
               has_backing ? "-b base.raw -F raw" : "", options);
    for (unsigned i = 0; i < STEPS; i++) {
        open_disk(&fixture);
        write_some(&fixture);
        resize(&fixture);
        write_some(&fixture); /* what is in memory is right, too */
        ASSERT_OK(block_close(fixture.disk));
        judge(&fixture);
        if (i == STEPS / 2) {
            ASSERT_RUN(&oracle, "qemu-img snapshot -c mark disk.qcow2");
            memcpy(marked, fixture.model, BYTES_MAX);
            marked_bytes = fixture.bytes;
        }
    }
    struct host_file *file = qemu_oracle_open_disk(&oracle);
    ASSERT_OK(qcow_snapshot_apply(file, "mark"));
    host_file_destroy(file);
    memcpy(fixture.model, marked, BYTES_MAX);
    fixture.bytes = marked_bytes;
    judge(&fixture);
    free(marked);
    free(fixture.model);
}

TEST(disks_grow_and_shrink_in_images_of_every_kind)
{
    try_options("cluster_size=64k", false);
    try_options("cluster_size=512", false);
    try_options("cluster_size=4k,refcount_bits=64", false);
    try_options("extended_l2=on,cluster_size=32k", false);
}

TEST(a_longer_backing_image_does_not_come_to_light)
{
    try_options("cluster_size=64k", true);
    try_options("cluster_size=512,refcount_bits=8", true);
    try_options("extended_l2=on,cluster_size=16k", true);
    try_options("cluster_size=4k", true);
}

TEST(the_state_of_a_machine_does_not_come_to_light)
{
    struct fixture fixture = {.options = "vm", .bytes = 2 * MIB, .model = calloc(1, BYTES_MAX)};

    if (qemu_oracle_run(&oracle, "qemu-system-x86_64 --version") != 0)
        skip();
    assert_non_null(fixture.model);
    ASSERT_RUN(&oracle, "rm -f * && qemu-img create -f qcow2 -o cluster_size=4k disk.qcow2 2M");
    ASSERT_RUN(&oracle,
               "(echo 'savevm vm'; echo quit) | qemu-system-x86_64 -machine none -display none "
               "-monitor stdio -m 16 -drive if=none,id=d0,file=disk.qcow2,format=qcow2");
    struct host_file *file = qemu_oracle_open_disk(&oracle);
    ASSERT_OK(qcow_snapshot_apply(file, "vm"));
    host_file_destroy(file);
    open_disk(&fixture);
    ASSERT_OK(qcow_image_resize(fixture.disk, fixture.bytes = 5 * MIB));
    ASSERT_OK(block_close(fixture.disk));
    judge(&fixture);
    free(fixture.model);
}

TEST(sizes_that_are_not_possible_are_refused)
{
    struct fixture fixture = {.bytes = 2 * MIB};

    ASSERT_RUN(&oracle, "rm -f * && qemu-img create -f qcow2 -o cluster_size=512 disk.qcow2 2M");
    open_disk(&fixture);
    assert_fails(qcow_image_resize(fixture.disk, 1000), ERR_INVALID);
    assert_fails(qcow_image_resize(fixture.disk, 256 * GIB), ERR_INVALID);
    assert_int_equal(fixture.disk->virtual_bytes, 2 * MIB);
    ASSERT_OK(qcow_image_resize(fixture.disk, 0));
    ASSERT_OK(qcow_image_resize(fixture.disk, 2 * MIB));
    ASSERT_OK(block_close(fixture.disk));
    ASSERT_RUN(&oracle, "qemu-img check -f qcow2 disk.qcow2");
}

static int make_folder(void **state)
{
    (void)state;
    chance = chance_of(chance_setting("FERRY_TEST_SEED", 5));
    return qemu_oracle_init(&oracle, "qcow_resize_test");
}

static int remove_folder(void **state)
{
    (void)state;
    return qemu_oracle_finish(&oracle);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(disks_grow_and_shrink_in_images_of_every_kind),
        cmocka_unit_test(a_longer_backing_image_does_not_come_to_light),
        cmocka_unit_test(the_state_of_a_machine_does_not_come_to_light),
        cmocka_unit_test(sizes_that_are_not_possible_are_refused),
    };

    if (!qemu_oracle_has("qemu-img"))
        return QEMU_ORACLE_SKIPPED;
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
