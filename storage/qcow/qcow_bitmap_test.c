/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_bitmap_test.c - persistent bitmaps, made and kept up by us and by QEMU in turns: both must
 * say that the same parts of the disk were written, and QEMU must find neither error nor leak.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "base/limits.h"
#include "base/unit_test.h"
#include "storage/host_file.h"
#include "storage/qcow/qcow_bitmap.h"
#include "storage/qcow/qcow_image.h"
#include "storage/qcow/qcow_repair.h"
#include "storage/qcow/qcow_resize.h"
#include "storage/qcow/qcow_snapshot.h"
#include "storage/testing/chance.h"
#include "storage/testing/planned_request.h"
#include "storage/testing/qemu_oracle.h"

#define DISK_BYTES   (8 * MIB)
#define SECTOR_BYTES 512u

static struct qemu_oracle oracle;
static struct chance chance;

static void make_disk(const char *options)
{
    ASSERT_RUN(&oracle, "rm -f * && qemu-img create -f qcow2 -o %s disk.qcow2 8M", options);
}

/* One operation on the file of the disk. */
#define CHANGE(call)                                                                               \
    do {                                                                                           \
        struct host_file *file = qemu_oracle_open_disk(&oracle);                                   \
        ASSERT_OK(call);                                                                           \
        host_file_destroy(file);                                                                   \
    } while (0)

static void expect_refusal(struct err *err, struct host_file *file, enum err_kind kind)
{
    host_file_destroy(file);
    assert_fails(err, kind);
}

/* Marks on a model what is written, as a bitmap of this granularity should show it. */
struct model {
    unsigned granularity_bits;
    uint8_t dirty[DISK_BYTES / SECTOR_BYTES];
};

static void note(struct model *model, uint64_t offset, uint64_t len)
{
    for (uint64_t i = offset >> model->granularity_bits;
         i <= (offset + len - 1) >> model->granularity_bits; i++)
        model->dirty[i] = 1;
}

static void expect_bits(const struct model *model, const char *name)
{
    struct host_file *file = qemu_oracle_open_disk(&oracle);
    struct qcow_bitmap_set set;

    ASSERT_OK(qcow_bitmap_list(file, &set));
    const struct qcow_bitmap *bitmap = qcow_bitmap_find(&set, name);
    assert_non_null(bitmap);
    assert_non_null(bitmap->bits);
    assert_int_equal(bitmap->granularity_bits, model->granularity_bits);
    assert_int_equal(bitmap->bit_count,
                     divide_up(set.virtual_bytes, 1u << model->granularity_bits));
    for (uint64_t i = 0; i < bitmap->bit_count; i++)
        assert_int_equal(bitmap->bits[i / 8] >> i % 8 & 1, model->dirty[i]);
    qcow_bitmap_set_finish(&set);
    host_file_destroy(file);
}

/* What QEMU makes of it: "offset length type" lines of nbdinfo. */
static void expect_qemu_sees(const struct model *model, const char *name)
{
    static uint8_t seen[DISK_BYTES / SECTOR_BYTES];
    unsigned long long offset, len;
    unsigned type;
    char path[160], text[160];

    ASSERT_RUN(
        &oracle,
        "qemu-nbd -r -t -f qcow2 -B '%s' -k $PWD/socket --pid-file=nbd.pid --fork disk.qcow2 "
        "&& nbdinfo --map='qemu:dirty-bitmap:%s' \"nbd+unix:///?socket=$PWD/socket\" >map; "
        "code=$?; kill $(cat nbd.pid); while kill -0 $(cat nbd.pid); do :; done; exit $code",
        name, name);
    memset(seen, 0, sizeof(seen));
    (void)snprintf(path, sizeof(path), "%s/map", oracle.folder);
    FILE *map = fopen(path, "r");
    if (map == NULL) {
        fail_msg("no map");
        return;
    }
    while (fgets(text, sizeof(text), map) != NULL) {
        char *at = text;
        offset = strtoull(at, &at, 10);
        len = strtoull(at, &at, 10);
        type = (unsigned)strtoul(at, &at, 10);
        for (uint64_t i = offset; type != 0 && i < offset + len; i += SECTOR_BYTES)
            seen[i >> model->granularity_bits] = 1;
    }
    (void)fclose(map);
    assert_memory_equal(seen, model->dirty, DISK_BYTES >> model->granularity_bits);
}

static void write_at(struct block *disk, uint64_t offset, size_t len)
{
    static uint8_t data[64 << 10];
    struct iovec iov = {data, len};

    ASSERT_OK(block_write(disk, &iov, 1, offset));
}

static unsigned planned_writes;

static void write_some(struct block *disk, struct model *model)
{
    static uint8_t data[200 << 10];

    for (unsigned i = 0; i < 6; i++) {
        uint64_t len = (1 + chance_below(&chance, 400)) * SECTOR_BYTES;
        uint64_t offset =
            chance_below(&chance, (DISK_BYTES - len) / SECTOR_BYTES + 1) * SECTOR_BYTES;
        struct iovec iov = {data, len};
        bool is_planned = false;
        note(model, offset, len);
        switch (chance_below(&chance, 6)) {
        case 0: ASSERT_OK(block_discard(disk, offset, len)); break;
        case 1: ASSERT_OK(block_write_zeroes(disk, offset, len, true)); break;
        case 2: ASSERT_OK(block_write(disk, &iov, 1, offset)); break;
        default: ASSERT_OK(planned_write(disk, data, len, offset, &is_planned));
        }
        planned_writes += is_planned;
    }
}

static void keep_up(const char *options, unsigned granularity_bits)
{
    struct model model = {.granularity_bits = granularity_bits};
    struct block *disk = NULL;

    make_disk(options);
    CHANGE(qcow_bitmap_add(file, "since monday", granularity_bits, true));
    CHANGE(qcow_bitmap_add(file, "off", 0, false));
    expect_bits(&model, "since monday");
    for (unsigned i = 0; i < 4; i++) {
        ASSERT_OK(qcow_image_open(qemu_oracle_open_disk(&oracle), false, &disk));
        write_some(disk, &model);
        ASSERT_OK(block_flush(disk));
        if (i == 1) {
            ASSERT_OK(qcow_image_seal(disk));
            expect_bits(&model, "since monday");
            qcow_image_unseal(disk);
            write_some(disk, &model);
        }
        ASSERT_OK(block_close(disk));
        expect_bits(&model, "since monday");
        expect_bits(&(struct model){.granularity_bits = 16}, "off");
        expect_qemu_sees(&model, "since monday");
        ASSERT_RUN(&oracle, "qemu-io -f qcow2 -c 'write %uk 100k' disk.qcow2", 1000 + 512 * i);
        note(&model, (1000 + 512 * i) * KIB, 100 * KIB);
        expect_bits(&model, "since monday");
        ASSERT_RUN(&oracle, "qemu-img check -f qcow2 disk.qcow2");
    }
}

TEST(bitmaps_are_kept_up_while_the_image_is_written)
{
    keep_up("cluster_size=64k", 16);
    keep_up("cluster_size=512", 9);
    keep_up("cluster_size=2M", 12);
    keep_up("extended_l2=on,cluster_size=16k", 18);
    assert_true(planned_writes > 0);
}

TEST(a_bitmap_that_was_not_saved_is_not_relied_on)
{
    struct model model = {.granularity_bits = 16};
    struct qcow_bitmap_set set;
    struct block *disk = NULL;

    make_disk("cluster_size=64k");
    ASSERT_RUN(&oracle,
               "qemu-img bitmap --add disk.qcow2 map && qemu-img bitmap --add disk.qcow2 other && "
               "qemu-img bitmap --disable disk.qcow2 other");
    ASSERT_OK(qcow_image_open(qemu_oracle_open_disk(&oracle), false, &disk));
    ASSERT_RUN(&oracle, "cp disk.qcow2 opened.qcow2"); /* nothing was written yet */
    write_some(disk, &model);
    ASSERT_OK(block_flush(disk));
    ASSERT_RUN(&oracle, "cp disk.qcow2 cut.qcow2");
    ASSERT_OK(block_close(disk));
    expect_bits(&model, "map");

    ASSERT_RUN(&oracle, "qemu-img info -f qcow2 disk.qcow2 >info && ! grep in-use info");
    ASSERT_RUN(&oracle, "qemu-img info -f qcow2 opened.qcow2 >info && ! grep in-use info");
    ASSERT_RUN(&oracle, "qemu-img info -f qcow2 cut.qcow2 >info && grep in-use info");
    ASSERT_RUN(&oracle, "mv cut.qcow2 disk.qcow2");
    struct host_file *held = qemu_oracle_open_disk(&oracle);
    ASSERT_OK(qcow_bitmap_list(held, &set));
    assert_null(qcow_bitmap_find(&set, "map")->bits);
    assert_non_null(qcow_bitmap_find(&set, "other")->bits);
    qcow_bitmap_set_finish(&set);
    expect_refusal(qcow_bitmap_clear(held, "map"), held, ERR_STATE);
    held = qemu_oracle_open_disk(&oracle);
    expect_refusal(qcow_bitmap_merge(held, "map", "other"), held, ERR_STATE);

    /* It stays unreliable when the image is used again, and may be removed. */
    ASSERT_OK(qcow_image_open(qemu_oracle_open_disk(&oracle), false, &disk));
    write_some(disk, &model);
    ASSERT_OK(block_close(disk));
    ASSERT_RUN(&oracle, "qemu-img info -f qcow2 disk.qcow2 >info && grep in-use info");
    CHANGE(qcow_bitmap_remove(file, "map"));
    ASSERT_RUN(&oracle,
               "qemu-img check -f qcow2 disk.qcow2 && qemu-img info -f qcow2 disk.qcow2 >info && "
               "! grep in-use info && grep other info");
}

TEST(bitmaps_are_changed_as_a_whole)
{
    struct model left = {.granularity_bits = 16}, right = {.granularity_bits = 12};

    make_disk("cluster_size=4k");
    CHANGE(qcow_bitmap_add(file, "left", 16, true));
    ASSERT_RUN(&oracle, "qemu-io -f qcow2 -c 'write 1M 70k' disk.qcow2");
    note(&left, MIB, 70 * KIB);
    CHANGE(qcow_bitmap_enable(file, "left", false));
    ASSERT_RUN(&oracle, "qemu-img bitmap --add -g 4k disk.qcow2 right");
    ASSERT_RUN(&oracle, "qemu-io -f qcow2 -c 'write 3M 4k' disk.qcow2");
    note(&right, 3 * MIB, 4 * KIB);
    expect_bits(&left, "left");
    expect_bits(&right, "right");
    expect_qemu_sees(&left, "left");

    CHANGE(qcow_bitmap_merge(file, "left", "right"));
    note(&right, MIB, 128 * KIB);
    expect_bits(&right, "right");
    expect_qemu_sees(&right, "right");
    CHANGE(qcow_bitmap_clear(file, "left"));
    expect_bits(&(struct model){.granularity_bits = 16}, "left");
    CHANGE(qcow_bitmap_enable(file, "left", true));
    ASSERT_RUN(&oracle, "qemu-img check -f qcow2 disk.qcow2");
    CHANGE(qcow_bitmap_remove(file, "left"));
    CHANGE(qcow_bitmap_remove(file, "right"));
    ASSERT_RUN(&oracle,
               "qemu-img check -f qcow2 disk.qcow2 && qemu-img info -f qcow2 disk.qcow2 >info && "
               "! grep -i bitmap info");
    CHANGE(qcow_bitmap_add(file, "again", 31, true));
    ASSERT_RUN(&oracle,
               "qemu-img check -f qcow2 disk.qcow2 && qemu-img bitmap --remove disk.qcow2 again");
}

/* The disk's bitmaps are to be those of a disk of this size; what QEMU sees is judged at the end.
 */
static void resize(uint64_t virtual_bytes, struct model *model)
{
    struct block *disk = NULL;

    ASSERT_OK(qcow_image_open(qemu_oracle_open_disk(&oracle), false, &disk));
    uint64_t before = disk->virtual_bytes;
    uint64_t end = divide_up(virtual_bytes, 1u << model->granularity_bits);
    write_at(disk, MIB, 4 * KIB);
    note(model, MIB, 4 * KIB);
    ASSERT_OK(qcow_image_resize(disk, virtual_bytes));
    memset(model->dirty + end, 0, sizeof(model->dirty) - end);
    if (virtual_bytes > before)
        note(model, before, virtual_bytes - before);
    write_at(disk, 2 * MIB, 4 * KIB);
    note(model, 2 * MIB, 4 * KIB);
    ASSERT_OK(block_close(disk));
    expect_bits(model, "map");
    ASSERT_RUN(&oracle, "qemu-img check -f qcow2 disk.qcow2");
}

TEST(bitmaps_that_were_given_up_are_in_nobodys_way)
{
    struct model model = {.granularity_bits = 16};
    struct qcow_repair_report report;
    struct block *disk = NULL;

    make_disk("cluster_size=512");
    CHANGE(qcow_bitmap_add(file, "map", 9, true));
    ASSERT_OK(qcow_image_open(qemu_oracle_open_disk(&oracle), false, &disk));
    write_at(disk, 0, 4 * KIB);
    ASSERT_OK(block_close(disk));
    /* The lowest autoclear bit, cleared by a program that knows nothing of bitmaps; then their
     * space is given to others. QEMU takes the extension away, too. */
    ASSERT_RUN(&oracle, "printf '\\0' | dd of=disk.qcow2 bs=1 seek=95 conv=notrunc");
    CHANGE(qcow_repair(file, QCOW_REPAIR_ALL, NULL, &report));
    ASSERT_OK(qcow_image_open(qemu_oracle_open_disk(&oracle), false, &disk));
    for (uint64_t at = 0; at < DISK_BYTES; at += 64 * KIB)
        write_at(disk, at, 64 * KIB);
    ASSERT_OK(block_close(disk));
    ASSERT_RUN(&oracle, "qemu-img check -f qcow2 disk.qcow2");
    CHANGE(qcow_bitmap_add(file, "again", 16, true));
    expect_bits(&model, "again");
}

TEST(bitmaps_follow_the_size_of_the_disk)
{
    struct model model = {.granularity_bits = 16};
    struct model clean = {.granularity_bits = 12};

    make_disk("cluster_size=4k");
    CHANGE(qcow_bitmap_add(file, "map", 16, true));
    resize(4 * MIB + 512, &model);
    resize(3 * MIB, &model);
    CHANGE(qcow_bitmap_add(file, "off", 12, false));
    resize(7 * MIB + 1024, &model);
    memset(clean.dirty + (3 * MIB >> 12), 1, divide_up(4 * MIB + 1024, 4 * KIB));
    expect_bits(&clean, "off");
    resize(DISK_BYTES, &model);
    expect_qemu_sees(&model, "map");
}

TEST(bitmaps_say_that_going_back_changed_everything)
{
    struct model model = {.granularity_bits = 16};

    make_disk("cluster_size=4k");
    CHANGE(qcow_snapshot_create(file, "whole", 0));
    CHANGE(qcow_bitmap_add(file, "map", 16, true));
    resize(3 * MIB + 512, &model);
    CHANGE(qcow_snapshot_create(file, "small", 0));
    CHANGE(qcow_snapshot_apply(file, "whole"));
    memset(model.dirty, 1, DISK_BYTES >> 16);
    expect_bits(&model, "map");
    expect_qemu_sees(&model, "map");
    CHANGE(qcow_snapshot_apply(file, "small"));
    memset(model.dirty + (3 * MIB >> 16) + 1, 0, sizeof(model.dirty) - (3 * MIB >> 16) - 1);
    expect_bits(&model, "map");
    ASSERT_RUN(&oracle, "qemu-img check -f qcow2 disk.qcow2");
}

TEST(the_header_gets_room_and_keeps_the_rest)
{
    struct model model = {.granularity_bits = 16};
    static const char *const sizes[] = {"512", "4k", "64k"};

    for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
        make_disk("cluster_size=64k");
        ASSERT_RUN(&oracle,
                   "mv disk.qcow2 the-base-image.qcow2 && qemu-img create -f qcow2 -o "
                   "cluster_size=%s -b the-base-image.qcow2 -F qcow2 disk.qcow2",
                   sizes[i]);
        CHANGE(qcow_bitmap_add(file, "map", 0, true));
        ASSERT_RUN(&oracle,
                   "qemu-img info -f qcow2 disk.qcow2 >info && grep the-base-image info && "
                   "grep map info && qemu-img check -f qcow2 disk.qcow2");
        ASSERT_RUN(&oracle, "qemu-io -f qcow2 -c 'write 2M 64k' disk.qcow2");
        note(&model, 2 * MIB, 64 * KIB);
        expect_bits(&model, "map");
    }
}

TEST(what_can_not_be_done_is_refused)
{
    struct block *disk = NULL;

    make_disk("compat=0.10");
    struct host_file *held = qemu_oracle_open_disk(&oracle);
    expect_refusal(qcow_bitmap_add(held, "map", 0, true), held, ERR_INCOMPATIBLE);
    make_disk("cluster_size=64k");
    held = qemu_oracle_open_disk(&oracle);
    expect_refusal(qcow_bitmap_add(held, "", 0, true), held, ERR_INVALID);
    held = qemu_oracle_open_disk(&oracle);
    expect_refusal(qcow_bitmap_add(held, "map", 8, true), held, ERR_INVALID);
    held = qemu_oracle_open_disk(&oracle);
    expect_refusal(qcow_bitmap_remove(held, "map"), held, ERR_NOT_FOUND);
    CHANGE(qcow_bitmap_add(file, "map", 0, true));
    held = qemu_oracle_open_disk(&oracle);
    expect_refusal(qcow_bitmap_add(held, "map", 0, true), held, ERR_STATE);
    ASSERT_OK(qcow_image_open(qemu_oracle_open_disk(&oracle), false, &disk));
    write_at(disk, 0, 512);
    ASSERT_OK(block_flush(disk));
    ASSERT_RUN(&oracle, "cp disk.qcow2 cut.qcow2");
    ASSERT_OK(block_close(disk));
    /* Of a bitmap that can not be relied on nobody knows what it would say of another disk. */
    ASSERT_RUN(&oracle, "mv cut.qcow2 disk.qcow2");
    CHANGE(qcow_snapshot_create(file, "here", 0));
    ASSERT_OK(qcow_image_open(qemu_oracle_open_disk(&oracle), false, &disk));
    assert_fails(qcow_image_resize(disk, 9 * MIB), ERR_STATE);
    ASSERT_OK(block_close(disk));
    held = qemu_oracle_open_disk(&oracle);
    expect_refusal(qcow_snapshot_apply(held, "here"), held, ERR_STATE);
    ASSERT_RUN(&oracle,
               "qemu-img check -f qcow2 disk.qcow2 && qemu-img info -f qcow2 disk.qcow2 >info && "
               "grep map info");
}

static int make_folder(void **state)
{
    (void)state;
    chance = chance_of(chance_setting("FERRY_TEST_SEED", 6));
    return qemu_oracle_init(&oracle, "qcow_bitmap_test");
}

static int remove_folder(void **state)
{
    (void)state;
    return qemu_oracle_finish(&oracle);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bitmaps_are_kept_up_while_the_image_is_written),
        cmocka_unit_test(a_bitmap_that_was_not_saved_is_not_relied_on),
        cmocka_unit_test(bitmaps_are_changed_as_a_whole),
        cmocka_unit_test(bitmaps_that_were_given_up_are_in_nobodys_way),
        cmocka_unit_test(bitmaps_follow_the_size_of_the_disk),
        cmocka_unit_test(bitmaps_say_that_going_back_changed_everything),
        cmocka_unit_test(the_header_gets_room_and_keeps_the_rest),
        cmocka_unit_test(what_can_not_be_done_is_refused),
    };

    if (!qemu_oracle_has("qemu-img qemu-nbd nbdinfo"))
        return QEMU_ORACLE_SKIPPED;
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
