/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_snapshot_test.c - snapshots inside images, taken, gone back to and deleted by us and by QEMU
 * in turns. After each step QEMU must find neither error nor leak, and the disk and every snapshot
 * must hold what plain arrays hold.
 *
 * FERRY_TEST_SEED selects other steps, FERRY_TEST_OPERATIONS how many for each kind of image.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "base/unit_test.h"
#include "storage/disk_image.h"
#include "storage/host_file.h"
#include "storage/qcow/qcow_snapshot.h"
#include "storage/testing/chance.h"
#include "storage/testing/planned_request.h"
#include "storage/testing/qemu_oracle.h"

#define DISK_BYTES    (3u << 20)
#define SECTOR_BYTES  512u
#define SNAPSHOTS_MAX 5u

static struct qemu_oracle oracle;
static struct chance chance;

struct kept {
    char name[16];
    uint8_t *content; /* NULL: free */
};

struct fixture {
    const char *options;
    uint8_t *model;
    struct kept snapshots[SNAPSHOTS_MAX];
    unsigned taken;
};

static uint8_t *copy_of(const uint8_t *content)
{
    uint8_t *copy = malloc(DISK_BYTES);

    assert_non_null(copy);
    return memcpy(copy, content, DISK_BYTES);
}

static void do_request(struct fixture *fixture, struct block *disk)
{
    uint64_t limit = chance_below(&chance, 4) == 0 ? 200000 : 9000;
    uint64_t len = (1 + chance_below(&chance, limit / SECTOR_BYTES)) * SECTOR_BYTES;
    uint64_t offset = chance_below(&chance, (DISK_BYTES - len) / SECTOR_BYTES + 1) * SECTOR_BYTES;
    struct iovec iov = {fixture->model + offset, len};

    if (chance_below(&chance, 5) == 0) {
        memset(fixture->model + offset, 0, len);
        ASSERT_OK(block_write_zeroes(disk, offset, len, chance_below(&chance, 2) == 0));
        return;
    }
    for (uint64_t i = 0; i < len; i++)
        fixture->model[offset + i] = (uint8_t)chance_below(&chance, 256);
    if (chance_below(&chance, 2) == 0)
        ASSERT_OK(planned_write(disk, iov.iov_base, len, offset, NULL));
    else
        ASSERT_OK(block_write(disk, &iov, 1, offset));
}

static void work(struct fixture *fixture)
{
    struct block *disk = NULL;

    ASSERT_OK(disk_image_open(oracle.disk, "qcow2", DISK_IMAGE_WRITABLE, &disk));
    for (unsigned i = 0; i < 12; i++)
        do_request(fixture, disk);
    ASSERT_OK(block_close(disk));
}

static bool is_ours(void)
{
    return chance_below(&chance, 3) > 0;
}

/* With spaces and numbers in it, which could be taken for an id. */
static void take(struct fixture *fixture, struct kept *kept)
{
    (void)snprintf(kept->name, sizeof(kept->name), "at %u", 100 + fixture->taken++);
    kept->content = copy_of(fixture->model);
    if (is_ours()) {
        struct host_file *file = qemu_oracle_open_disk(&oracle);
        ASSERT_OK(qcow_snapshot_create(file, kept->name, 1700000000123456789u));
        host_file_destroy(file);
    } else {
        ASSERT_RUN(&oracle, "qemu-img snapshot -c '%s' disk.qcow2", kept->name);
    }
}

static void go_back(struct fixture *fixture, const struct kept *kept)
{
    memcpy(fixture->model, kept->content, DISK_BYTES);
    if (is_ours()) {
        struct host_file *file = qemu_oracle_open_disk(&oracle);
        ASSERT_OK(qcow_snapshot_apply(file, kept->name));
        host_file_destroy(file);
    } else {
        ASSERT_RUN(&oracle, "qemu-img snapshot -a '%s' disk.qcow2", kept->name);
    }
}

static void forget(struct kept *kept)
{
    free(kept->content);
    kept->content = NULL;
    if (is_ours()) {
        struct host_file *file = qemu_oracle_open_disk(&oracle);
        ASSERT_OK(qcow_snapshot_delete(file, kept->name));
        host_file_destroy(file);
    } else {
        ASSERT_RUN(&oracle, "qemu-img snapshot -d '%s' disk.qcow2", kept->name);
    }
}

static void judge(const struct fixture *fixture, const char *step)
{
    struct qemu_oracle_verdict verdict = qemu_oracle_judge(&oracle, fixture->model, DISK_BYTES);
    if (verdict.check != 0 || verdict.compare != 0)
        fail_msg("'%s', %s: check %d, compare %d", fixture->options, step, verdict.check,
                 verdict.compare);
    for (unsigned i = 0; i < SNAPSHOTS_MAX; i++) {
        const struct kept *kept = &fixture->snapshots[i];
        if (kept->content == NULL)
            continue;
        qemu_oracle_store(&oracle, "kept.raw", kept->content, DISK_BYTES);
        if (qemu_oracle_run(
                &oracle,
                "qemu-img convert -l 'snapshot.name=%s' -f qcow2 -O raw disk.qcow2 found.raw && "
                "cmp found.raw kept.raw",
                kept->name) != 0)
            fail_msg("'%s', %s: snapshot '%s' has changed", fixture->options, step, kept->name);
    }
}

static void do_step(struct fixture *fixture)
{
    struct kept *kept = &fixture->snapshots[chance_below(&chance, SNAPSHOTS_MAX)];
    const char *step = "taken";

    work(fixture);
    if (kept->content == NULL) {
        take(fixture, kept);
    } else if (chance_below(&chance, 2) == 0) {
        step = "gone back";
        go_back(fixture, kept);
    } else {
        step = "deleted";
        forget(kept);
    }
    judge(fixture, step);
}

static void make_disk(const struct fixture *fixture, bool is_compressed)
{
    (void)qemu_oracle_run(&oracle, "rm -f *.qcow2 *.raw");
    if (!is_compressed) {
        ASSERT_RUN(&oracle, "qemu-img create -f qcow2 -o %s disk.qcow2 %u", fixture->options,
                   DISK_BYTES);
        return;
    }
    for (uint64_t i = 0; i < DISK_BYTES / 2; i++)
        fixture->model[i] = (uint8_t)(i / 777);
    qemu_oracle_store(&oracle, "base.raw", fixture->model, DISK_BYTES);
    ASSERT_RUN(&oracle, "qemu-img convert -c -f raw -O qcow2 -o %s base.raw disk.qcow2",
               fixture->options);
}

static void try_options(const char *options, bool is_compressed)
{
    struct fixture fixture = {.options = options, .model = calloc(1, DISK_BYTES)};

    assert_non_null(fixture.model);
    make_disk(&fixture, is_compressed);
    for (uint64_t i = 0; i < chance_setting("FERRY_TEST_OPERATIONS", 9); i++)
        do_step(&fixture);
    for (unsigned i = 0; i < SNAPSHOTS_MAX; i++)
        if (fixture.snapshots[i].content != NULL)
            forget(&fixture.snapshots[i]);
    work(&fixture);
    judge(&fixture, "all deleted");
    free(fixture.model);
}

TEST(snapshots_work_in_images_of_every_kind)
{
    static const char *const options[] = {
        "cluster_size=64k",
        "compat=0.10",
        "compat=0.10,cluster_size=1k",
        "cluster_size=4k,refcount_bits=4",
        "cluster_size=512,refcount_bits=64",
        "cluster_size=2M",
        "cluster_size=4k,lazy_refcounts=on",
        "cluster_size=64k,preallocation=metadata",
        "extended_l2=on,cluster_size=128k",
        "extended_l2=on,cluster_size=16k,refcount_bits=8",
    };

    for (size_t i = 0; i < ARRAY_COUNT(options); i++)
        try_options(options[i], false);
}

TEST(snapshots_share_compressed_clusters)
{
    try_options("cluster_size=64k", true);
    try_options("cluster_size=4k", true);
    try_options("extended_l2=on,cluster_size=32k,compression_type=zstd", true);
}

/* An attempt that is refused, and the file is as before. */
static void expect_refusal(struct err *(*attempt)(struct host_file *file), const char *text)
{
    ASSERT_RUN(&oracle, "cp disk.qcow2 before.qcow2");
    struct host_file *file = qemu_oracle_open_disk(&oracle);
    struct err *err = attempt(file);
    host_file_destroy(file);
    assert_non_null(err);
    if (strstr(err_message(err), text) == NULL)
        fail_msg("'%s' is not in '%s'", text, err_message(err));
    err_free(err);
    ASSERT_RUN(&oracle, "cmp disk.qcow2 before.qcow2");
}

static struct err *take_again(struct host_file *file)
{
    return qcow_snapshot_create(file, "again", 0);
}

static struct err *take_nameless(struct host_file *file)
{
    return qcow_snapshot_create(file, "", 0);
}

static struct err *apply_missing(struct host_file *file)
{
    return qcow_snapshot_apply(file, "missing");
}

static struct err *delete_missing(struct host_file *file)
{
    return qcow_snapshot_delete(file, "missing");
}

TEST(what_can_not_be_done_is_refused_before_anything_changes)
{
    struct fixture fixture = {.options = "refcount_bits=1", .model = calloc(1, DISK_BYTES)};

    make_disk(&fixture, false);
    work(&fixture);
    expect_refusal(take_again, "counts of 1 bit");

    fixture.options = "refcount_bits=2";
    make_disk(&fixture, false);
    work(&fixture);
    ASSERT_RUN(&oracle,
               "qemu-img snapshot -c one disk.qcow2 && qemu-img snapshot -c two disk.qcow2");
    expect_refusal(take_again, "counts of 2 bits end at 3");
    expect_refusal(take_nameless, "1 to 255 bytes");
    expect_refusal(apply_missing, "no such snapshot");
    expect_refusal(delete_missing, "no such snapshot");

    make_disk(&fixture, false);
    ASSERT_RUN(&oracle, "qemu-img snapshot -c again disk.qcow2");
    expect_refusal(take_again, "of this name already");
    free(fixture.model);
}

/* A machine saved by QEMU: its memory lies behind the disk's end. */
TEST(snapshots_with_the_state_of_a_machine_are_kept)
{
    struct fixture fixture = {.options = "cluster_size=4k", .model = calloc(1, DISK_BYTES)};

    if (qemu_oracle_run(&oracle, "qemu-system-x86_64 --version") != 0)
        skip();
    make_disk(&fixture, false);
    work(&fixture);
    ASSERT_RUN(&oracle,
               "(echo 'savevm vm'; echo quit) | qemu-system-x86_64 -machine none -display none "
               "-monitor stdio -m 16 -drive if=none,id=d0,file=disk.qcow2,format=qcow2");
    fixture.snapshots[0] = (struct kept){.name = "vm", .content = copy_of(fixture.model)};
    judge(&fixture, "saved");
    for (unsigned i = 0; i < 3; i++) {
        struct host_file *file = qemu_oracle_open_disk(&oracle);
        ASSERT_OK(qcow_snapshot_apply(file, "vm"));
        memcpy(fixture.model, fixture.snapshots[0].content, DISK_BYTES);
        host_file_destroy(file);
        judge(&fixture, "gone back");
        take(&fixture, &fixture.snapshots[1 + i]);
        work(&fixture);
        judge(&fixture, "taken");
    }
    ASSERT_RUN(&oracle,
               "(echo 'loadvm vm'; echo quit) | qemu-system-x86_64 -machine none -display none "
               "-monitor stdio -m 16 -drive if=none,id=d0,file=disk.qcow2,format=qcow2 | tee load; "
               "! grep -qi error load");
    forget(&fixture.snapshots[0]);
    memcpy(fixture.model, fixture.snapshots[3].content, DISK_BYTES);
    go_back(&fixture, &fixture.snapshots[3]);
    judge(&fixture, "deleted");
    for (unsigned i = 1; i <= 3; i++)
        free(fixture.snapshots[i].content);
    free(fixture.model);
}

TEST(going_back_takes_the_size_along)
{
    struct fixture fixture = {.options = "cluster_size=512", .model = calloc(1, DISK_BYTES)};
    struct qcow_snapshot_table table;

    make_disk(&fixture, false);
    work(&fixture);
    fixture.snapshots[0] = (struct kept){.name = "small", .content = copy_of(fixture.model)};
    ASSERT_RUN(&oracle, "qemu-img snapshot -c small disk.qcow2 && qemu-img resize disk.qcow2 9M && "
                        "qemu-io -f qcow2 -c 'write -P 9 8M 512k' disk.qcow2");
    struct host_file *file = qemu_oracle_open_disk(&oracle);
    ASSERT_OK(qcow_snapshot_create(file, "large", 0));
    ASSERT_OK(qcow_snapshot_apply(file, "small"));
    host_file_destroy(file);
    judge(&fixture, "smaller");
    ASSERT_RUN(&oracle,
               "test $(qemu-img info -f qcow2 --output=json disk.qcow2 | "
               "grep -c '\"virtual-size\": %u') = 1",
               DISK_BYTES);
    file = qemu_oracle_open_disk(&oracle);
    ASSERT_OK(qcow_snapshot_apply(file, "large"));
    ASSERT_OK(qcow_snapshot_list(file, &table));
    assert_int_equal(table.count, 2);
    assert_int_equal(table.list[1].disk_bytes, 9u << 20);
    assert_string_equal(table.list[1].id, "2");
    qcow_snapshot_table_finish(&table);
    host_file_destroy(file);
    ASSERT_RUN(&oracle, "qemu-img check -f qcow2 disk.qcow2 && "
                        "qemu-io -f qcow2 -c 'read -P 9 8M 512k' disk.qcow2");
    free(fixture.snapshots[0].content);
    free(fixture.model);
}

static int make_folder(void **state)
{
    (void)state;
    chance = chance_of(chance_setting("FERRY_TEST_SEED", 4));
    return qemu_oracle_init(&oracle, "qcow_snapshot_test");
}

static int remove_folder(void **state)
{
    (void)state;
    return qemu_oracle_finish(&oracle);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(snapshots_work_in_images_of_every_kind),
        cmocka_unit_test(snapshots_share_compressed_clusters),
        cmocka_unit_test(what_can_not_be_done_is_refused_before_anything_changes),
        cmocka_unit_test(snapshots_with_the_state_of_a_machine_are_kept),
        cmocka_unit_test(going_back_takes_the_size_along),
    };

    if (!qemu_oracle_has("qemu-img qemu-io"))
        return QEMU_ORACLE_SKIPPED;
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
