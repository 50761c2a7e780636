/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a chain shows is compared before and after a merge, as a machine reads it and as QEMU's
 * tools read it.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/checked_math.h"
#include "base/limits.h"
#include "base/unit_test.h"
#include "storage/layer_list.h"
#include "storage/layer_merge.h"

#define DISK_BYTES (8 * MIB)
#define LAYERS     9u

static char folder[] = "/tmp/layer_merge_test.XXXXXX";
static uint8_t *model; /* what the disk is to show */
static struct block *disk;
static char *path; /* of the newest layer */

static const char *at(const char *name)
{
    static char paths[16][128];
    static unsigned next;
    char *text = paths[next++ % 16];

    (void)snprintf(text, sizeof(paths[0]), "%s/%s", folder, name);
    return text;
}

static int shell(const char *command)
{
    char whole[512];

    (void)snprintf(whole, sizeof(whole), "cd %s && ( %s ) > log 2>&1", folder, command);
    int status = system(whole);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void must(const char *command)
{
    if (shell(command) == 0)
        return;
    (void)shell("cat log >&2");
    fail_msg("%s", command);
}

static void change(struct block *block)
{
    static uint8_t data[512 * KIB];

    for (int i = 0; i < 12; i++) {
        uint64_t offset = (uint64_t)rand() % (DISK_BYTES / 512) * 512;
        size_t len = MIN(512 * (1 + (size_t)rand() % 200), DISK_BYTES - offset);
        int value = rand() % 4 == 0 ? 0 : 1 + rand() % 255;
        struct iovec iov = {data, len};
        memset(data, value, len);
        if (value == 0)
            ASSERT_OK(block_write_zeroes(block, offset, len, true));
        else
            ASSERT_OK(block_write(block, &iov, 1, offset));
        memcpy(model + offset, data, len);
    }
}

static void expect_model(struct block *block)
{
    static uint8_t data[MIB];
    struct iovec iov = {data, sizeof(data)};

    for (uint64_t offset = 0; offset < DISK_BYTES; offset += sizeof(data)) {
        ASSERT_OK(block_read(block, &iov, 1, offset));
        assert_memory_equal(data, model + offset, sizeof(data));
    }
}

/* vm.img <- vm.000001.qcow2 <- ... <- vm.000009.qcow2, open and writable. */
static int start(void **state)
{
    (void)state;
    must("rm -rf *");
    srand(4);
    memset(model, 0, DISK_BYTES);
    must("truncate -s 8M vm.img");
    path = strdup(at("vm.img"));
    ASSERT_OK(disk_image_open(path, "raw", DISK_IMAGE_WRITABLE, &disk));
    change(disk);
    for (unsigned layer = 1; layer <= LAYERS; layer++) {
        const char *format = layer == 1 ? "raw" : "qcow2";
        char *overlay = NULL;
        ASSERT_OK(disk_image_next_overlay(path, &overlay));
        ASSERT_OK(disk_image_create_overlay(overlay, path, format, DISK_BYTES));
        ASSERT_OK(disk_image_switch(&disk, path, format, overlay));
        change(disk);
        free(path);
        path = overlay;
    }
    ASSERT_OK(block_flush(disk));
    return 0;
}

static int stop(void **state)
{
    (void)state;
    ASSERT_OK(block_close(disk));
    free(path);
    return 0;
}

static struct err *merge(const char *name, unsigned count)
{
    struct disk_image_name newest = {.path = at(name), .format = "qcow2"};
    struct layer_merge_result result;

    return layer_merge(&newest, count, NULL, &result);
}

static unsigned depth(void)
{
    struct disk_image_name name = {.path = path, .format = "qcow2"};
    struct layer_list list;

    ASSERT_OK(layer_list_read(&name, &list));
    unsigned count = list.count;
    layer_list_finish(&list);
    return count - 1;
}

TEST(a_running_disk_goes_on_with_the_merged_layer)
{
    unsigned gone = 0;

    ASSERT_OK(merge("vm.000006.qcow2", 4));
    assert_int_equal(depth(), LAYERS - 3);
    expect_model(disk);
    ASSERT_OK(disk_image_swap_layers(disk, at("vm.000006.qcow2"), &gone));
    assert_int_equal(gone, 3);
    expect_model(disk);
    /* It holds the new file's lock, and no more those of the files that are not its own any more.
     */
    must("qemu-io -f qcow2 -c 'write 0 512' vm.000006.qcow2 2>&1 | grep -E 'Failed to get|denied'");
    must("qemu-img info vm.000004.qcow2");
    must("chmod 644 vm.000004.qcow2 && qemu-io -f qcow2 -c 'discard 0 512' vm.000004.qcow2");
    change(disk);
    expect_model(disk);

    /* The merged layer is one like others: merged again, with what is above. */
    ASSERT_OK(merge("vm.000008.qcow2", 4));
    ASSERT_OK(disk_image_swap_layers(disk, at("vm.000008.qcow2"), &gone));
    assert_int_equal(gone, 3);
    expect_model(disk);
    assert_fails(disk_image_swap_layers(disk, at("vm.000006.qcow2"), &gone), ERR_NOT_FOUND);
    ASSERT_OK(block_close(disk));
    ASSERT_OK(disk_image_open(path, "qcow2", DISK_IMAGE_WRITABLE, &disk));
    expect_model(disk);
}

TEST(qemu_reads_the_same_from_every_layer)
{
    must("for i in 4 5 6 7 8; do qemu-img convert -O raw vm.00000$i.qcow2 before.$i; done");
    must("cp vm.000006.qcow2 copy.qcow2 && chmod 644 copy.qcow2 && "
         "qemu-img rebase -b vm.000002.qcow2 -F qcow2 copy.qcow2");
    ASSERT_OK(merge("vm.000006.qcow2", 4));

    must("qemu-img check vm.000006.qcow2");
    must(
        "for i in 4 5 6 7 8; do qemu-img compare -f qcow2 -F raw vm.00000$i.qcow2 before.$i; done");
    must("qemu-img compare vm.000006.qcow2 copy.qcow2");
    /* It holds what it needs and no more: without its backing file, the same as QEMU's. */
    must("qemu-img info vm.000006.qcow2 | grep -q 'backing file: vm.000002.qcow2'");
    must("test `stat -c %a vm.000006.qcow2` = 444");
}

TEST(snapshots_recognise_a_merged_layer)
{
    struct stat before, after;
    bool stands = false;

    assert_int_equal(stat(at("vm.000006.qcow2"), &before), 0);
    ASSERT_OK(merge("vm.000006.qcow2", 2));
    assert_int_equal(stat(at("vm.000006.qcow2"), &after), 0);
    assert_int_not_equal(before.st_ino, after.st_ino);
    assert_memory_equal(&before.st_mtim, &after.st_mtim, sizeof(before.st_mtim));
    ASSERT_OK(layer_stands_for(at("vm.000006.qcow2"), "qcow2", (uint64_t)before.st_size, &stands));
    assert_true(stands);
    ASSERT_OK(layer_stands_for(at("vm.000006.qcow2"), "qcow2", 12345, &stands));
    assert_false(stands);

    /* Also when it is merged once more. */
    ASSERT_OK(merge("vm.000006.qcow2", 3));
    ASSERT_OK(layer_stands_for(at("vm.000006.qcow2"), "qcow2", (uint64_t)before.st_size, &stands));
    assert_true(stands);
    ASSERT_OK(layer_stands_for(at("vm.000006.qcow2"), "qcow2", (uint64_t)after.st_size, &stands));
    assert_true(stands);
    must("qemu-img check vm.000006.qcow2");
    expect_model(disk);
}

TEST(what_can_not_be_merged_is_refused)
{
    assert_fails(merge("vm.000003.qcow2", 1), ERR_INVALID);
    assert_fails(merge("vm.000003.qcow2", 4), ERR_INVALID);
    assert_fails(merge("vm.000009.qcow2", 2), ERR_DENIED); /* a machine writes to it */
    assert_fails(merge("vm.000012.qcow2", 2), ERR_NOT_FOUND);
    ASSERT_OK(block_close(disk));
    assert_fails(merge("vm.000009.qcow2", 2), ERR_STATE); /* or may again */
    ASSERT_OK(disk_image_open(path, "qcow2", DISK_IMAGE_WRITABLE, &disk));
    assert_int_equal(depth(), LAYERS);
    assert_int_not_equal(shell("ls *.merging"), 0);
    expect_model(disk);
}

TEST(a_strange_file_does_not_take_a_layers_place)
{
    unsigned gone = 0;

    /* The layer itself, not merged: nothing is gone. */
    ASSERT_OK(disk_image_swap_layers(disk, at("vm.000004.qcow2"), &gone));
    assert_int_equal(gone, 0);
    must("qemu-img create -f qcow2 -b vm.000006.qcow2 -F qcow2 x && chmod 444 x && "
         "mv -f x vm.000004.qcow2");
    assert_fails(disk_image_swap_layers(disk, at("vm.000004.qcow2"), &gone), ERR_INVALID);
    must("qemu-img create -f qcow2 -b vm.000002.qcow2 -F qcow2 x 4M && chmod 444 x && "
         "mv -f x vm.000004.qcow2");
    assert_fails(disk_image_swap_layers(disk, at("vm.000004.qcow2"), &gone), ERR_INVALID);
    must("qemu-img create -f qcow2 -b vm.000002.qcow2 -F qcow2 x && mv -f x vm.000004.qcow2");
    assert_fails(disk_image_swap_layers(disk, at("vm.000004.qcow2"), &gone), ERR_STATE);
    expect_model(disk);
}

struct cancel {
    struct layer_merge_watch base;
    unsigned calls;
};

static bool cancel_soon(struct layer_merge_watch *watch, uint64_t done_bytes, uint64_t total_bytes)
{
    struct cancel *cancel = CONTAINER_OF(watch, struct cancel, base);

    assert_true(done_bytes > 0 && done_bytes <= total_bytes && total_bytes == DISK_BYTES);
    return ++cancel->calls < 5;
}

TEST(a_cancelled_merge_leaves_nothing)
{
    struct disk_image_name newest = {.path = at("vm.000006.qcow2"), .format = "qcow2"};
    struct cancel cancel = {.base = {.go_on = cancel_soon}};
    struct layer_merge_result result;

    assert_fails(layer_merge(&newest, 4, &cancel.base, &result), ERR_CANCELLED);
    assert_int_equal(depth(), LAYERS);
    assert_int_not_equal(shell("ls *.merging"), 0);
    expect_model(disk);
}

/* A process that is killed at a step of the merge; then the chain, and a merge after that. */
static void kill_at(const char *step, bool is_merged)
{
    int status = 0;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        (void)setenv("FERRY_TEST_STOP_AT", step, 1);
        err_free(merge("vm.000006.qcow2", 4));
        _exit(9);
    }
    assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
    assert_true(WIFSTOPPED(status));
    /* While it lives, nobody else merges into this layer. */
    if (!is_merged)
        assert_fails(merge("vm.000006.qcow2", 2), ERR_DENIED);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);

    assert_int_equal(depth(), is_merged ? LAYERS - 3 : LAYERS);
    must("qemu-img compare vm.000008.qcow2 before");
    expect_model(disk);
}

TEST(a_merge_that_is_killed_leaves_the_chain_whole)
{
    must("qemu-img convert -O raw vm.000008.qcow2 before");
    kill_at("merge copy", false);
    kill_at("merge finish", false);
    ASSERT_OK(merge("vm.000005.qcow2", 2)); /* which leaves are somebody else's, it leaves */
    assert_int_equal(shell("ls vm.000006.qcow2.merging"), 0);
    ASSERT_OK(merge("vm.000006.qcow2", 3));
    assert_int_not_equal(shell("ls *.merging"), 0);
    must("qemu-img compare vm.000008.qcow2 before");
}

TEST(a_merge_that_is_killed_after_its_rename_is_done)
{
    unsigned gone = 0;

    must("qemu-img convert -O raw vm.000008.qcow2 before");
    kill_at("merge rename", true);
    assert_int_not_equal(shell("ls *.merging"), 0);
    ASSERT_OK(disk_image_swap_layers(disk, at("vm.000006.qcow2"), &gone));
    assert_int_equal(gone, 3);
    must("qemu-img compare vm.000008.qcow2 before");
    expect_model(disk);
}

static int make_folder(void **state)
{
    (void)state;
    model = malloc(DISK_BYTES);
    return model == NULL || mkdtemp(folder) == NULL;
}

static int remove_folder(void **state)
{
    char command[128];

    (void)state;
    free(model);
    (void)snprintf(command, sizeof(command), "rm -rf %s", folder);
    return system(command);
}

#define WITH_DISK(test) cmocka_unit_test_setup_teardown(test, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_DISK(a_running_disk_goes_on_with_the_merged_layer),
        WITH_DISK(qemu_reads_the_same_from_every_layer),
        WITH_DISK(snapshots_recognise_a_merged_layer),
        WITH_DISK(what_can_not_be_merged_is_refused),
        WITH_DISK(a_strange_file_does_not_take_a_layers_place),
        WITH_DISK(a_cancelled_merge_leaves_nothing),
        WITH_DISK(a_merge_that_is_killed_leaves_the_chain_whole),
        WITH_DISK(a_merge_that_is_killed_after_its_rename_is_done),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
