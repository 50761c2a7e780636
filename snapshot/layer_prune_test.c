/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What goes and what stays. Whatever is removed, each snapshot that is left must show the disk as
 * it was.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked_math.h"
#include "base/unit_test.h"
#include "snapshot/held_layers.h"
#include "snapshot/layer_prune.h"
#include "snapshot/store_directory.h"
#include "snapshot/testing/saved_disk.h"
#include "storage/disk_image.h"
#include "storage/image_lock.h"

static struct saved_disk web;

static int start(void **state)
{
    (void)state;
    srand(7);
    ASSERT_OK(saved_disk_start(&web));
    return 0;
}

static int stop(void **state)
{
    (void)state;
    saved_disk_stop(&web);
    return web.folder[0] == '\0';
}

static void must(const char *command)
{
    char whole[512];

    (void)snprintf(whole, sizeof(whole), "cd '%s' && ( %s ) > log 2>&1", web.folder, command);
    if (system(whole) != 0)
        fail_msg("%s", command);
}

static void merge(unsigned newest, unsigned count)
{
    char name[64];

    (void)snprintf(name, sizeof(name), "images/web.%06u.qcow2", newest);
    ASSERT_OK(saved_disk_merge(&web, saved_disk_at(&web, name), count, true));
}

static bool is_there(unsigned number)
{
    char name[64];

    (void)snprintf(name, sizeof(name), "images/web.%06u.qcow2", number);
    return access(saved_disk_at(&web, name), F_OK) == 0;
}

static struct layer_prune_request request(void)
{
    return (struct layer_prune_request){.image = web.image};
}

/* What is told beforehand is what is then done. */
static size_t prune_with(struct layer_prune_request wanted, size_t *out_unknown)
{
    struct layer_prune_report told, done;

    ASSERT_OK(layer_prune(&wanted, LAYER_PRUNE_LOOK, &told));
    ASSERT_OK(layer_prune(&wanted, LAYER_PRUNE_REMOVE, &done));
    assert_int_equal(told.count, done.count);
    assert_int_equal(told.bytes, done.bytes);
    for (size_t i = 0; i < done.count; i++) {
        assert_string_equal(told.files[i].path, done.files[i].path);
        assert_int_not_equal(access(done.files[i].path, F_OK), 0);
    }
    size_t count = done.count;
    if (out_unknown != NULL)
        *out_unknown = done.unknown_count;
    layer_prune_report_finish(&told);
    layer_prune_report_finish(&done);
    ASSERT_OK(saved_disk_check(&web));
    return count;
}

static size_t prune(void)
{
    return prune_with(request(), NULL);
}

static void expect_refused(enum err_kind kind)
{
    struct layer_prune_request wanted = request();
    struct layer_prune_report report;

    assert_fails(layer_prune(&wanted, LAYER_PRUNE_LOOK, &report), kind);
    assert_fails(layer_prune(&wanted, LAYER_PRUNE_REMOVE, &report), kind);
}

/* web.img <- 1 <- ... <- 9, the last one in use; 3 to 5 were merged into 6. */
static void save_and_merge(void)
{
    for (int i = 0; i < 9; i++)
        ASSERT_OK(saved_disk_save(&web, "a"));
    merge(6, 4);
}

TEST(layers_go_when_no_snapshot_names_them_and_nothing_stands_on_them)
{
    save_and_merge();
    assert_int_equal(prune(), 0);
    ASSERT_OK(saved_disk_delete(&web, 3));
    ASSERT_OK(saved_disk_delete(&web, 4));
    assert_int_equal(prune(), 0); /* 5 stands on both */
    ASSERT_OK(saved_disk_delete(&web, 5));
    assert_int_equal(prune(), 3);
    assert_false(is_there(3) || is_there(4) || is_there(5));
    ASSERT_OK(saved_disk_delete(&web, 6));
    ASSERT_OK(saved_disk_delete(&web, 2));
    assert_int_equal(prune(), 0); /* the disk stands on them */

    for (unsigned i = 0; i < web.count; i++)
        if (web.snapshots[i].store[0] != '\0')
            ASSERT_OK(saved_disk_delete(&web, i));
    assert_int_equal(prune(), 0);
    web.snapshots[8].store[0] = 'a'; /* as if it were there: its layer is the disk's */
    ASSERT_OK(saved_disk_check(&web));
}

TEST(a_snapshot_in_any_store_keeps_its_layers)
{
    for (int i = 0; i < 4; i++)
        ASSERT_OK(saved_disk_save(&web, "a"));
    ASSERT_OK(saved_disk_save(&web, "b")); /* layer 4 */
    for (int i = 0; i < 4; i++)
        ASSERT_OK(saved_disk_save(&web, "a"));
    merge(6, 5);
    for (unsigned i = 0; i < web.count; i++)
        if (i != 4)
            ASSERT_OK(saved_disk_delete(&web, i));
    assert_int_equal(prune(), 1); /* 5, of which nobody knows any more */
    assert_true(is_there(4) && is_there(3) && is_there(2));
    ASSERT_OK(saved_disk_delete(&web, 4));
    assert_int_equal(prune(), 3);
}

TEST(layers_sealed_before_anything_was_written_down_stay_unless_told)
{
    struct layer_prune_request wanted = request();
    const char *stores[1];
    size_t unknown = 0;

    for (int i = 0; i < 4; i++)
        ASSERT_OK(saved_disk_save(&web, "old"));
    expect_refused(ERR_STATE);
    for (int i = 0; i < 4; i++)
        ASSERT_OK(saved_disk_save(&web, "a"));
    ASSERT_OK(saved_disk_save(&web, "old")); /* 8, by an older version in between */
    ASSERT_OK(saved_disk_save(&web, "a"));
    merge(9, 7); /* 3 to 9 */
    for (unsigned i = 0; i < web.count; i++)
        if (i != 9)
            ASSERT_OK(saved_disk_delete(&web, i));
    assert_int_equal(prune_with(wanted, &unknown), 0);
    assert_int_equal(unknown, 2); /* 3 and 8, which stands on the rest */
    assert_true(is_there(5) && is_there(3));
    wanted.is_unknown_too = true;
    stores[0] = saved_disk_at(&web, "old");
    wanted.stores = stores;
    wanted.store_count = 1;
    assert_int_equal(prune_with(wanted, &unknown), 6);
}

TEST(a_store_that_is_named_is_known_from_then_on)
{
    struct layer_prune_request wanted = request();
    const char *stores[1];

    save_and_merge();
    must("cp -a a copy && rm copy/.store-id");
    for (unsigned i = 3; i < 6; i++)
        ASSERT_OK(saved_disk_delete(&web, i));
    stores[0] = saved_disk_at(&web, "copy");
    wanted.stores = stores;
    wanted.store_count = 1;
    assert_int_equal(prune_with(wanted, NULL), 0);
    assert_int_equal(prune(), 0);
    must("rm -rf copy");
    expect_refused(ERR_STATE);
}

TEST(nothing_is_removed_while_something_can_not_be_looked_at)
{
    static const struct {
        const char *spoil;
        const char *restore;
        enum err_kind kind;
    } rows[] = {
        {"mv a away", "mv away a", ERR_STATE},
        {"mv a away && mkdir a", "rm -r a && mv away a", ERR_STATE},
        {"mv a/web away && mkdir a/web", "rm -r a/web && mv away a/web", ERR_STATE},
        {"mv a/web away && ln -s nowhere a/web", "rm a/web && mv away a/web", ERR_IO},
        {"cd a/web && for d in 2*; do truncate -s -1 $d/manifest; cp -a $d/manifest ../../m; break;"
         "done",
         "cd a/web && for d in 2*; do printf '\\000' >> $d/manifest; break; done", ERR_INVALID},
        {"printf x > images/x.qcow2", "rm images/x.qcow2", ERR_INVALID},
        {"mv images/web.000001.qcow2 away", "mv away images/web.000001.qcow2", ERR_IO},
        {"cp images/web.stores away && truncate -s 9 images/web.stores",
         "mv away images/web.stores", ERR_INVALID},
    };

    save_and_merge();
    for (unsigned i = 3; i < 6; i++)
        ASSERT_OK(saved_disk_delete(&web, i));
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        must(rows[i].spoil);
        expect_refused(rows[i].kind);
        if (i == 4) /* a damaged manifest stays so */
            must("cd a/web && for d in 2*; do rm $d/manifest; break; done");
        else
            must(rows[i].restore);
        assert_true(is_there(3) && is_there(4) && is_there(5));
    }
    web.snapshots[0].store[0] = '\0';
    assert_int_equal(prune(), 3);
}

/* Who restores the copy to its place has to find all of it. */
TEST(a_copy_of_the_folder_is_left_alone)
{
    struct layer_prune_request wanted = request();
    struct layer_prune_report report;

    save_and_merge();
    for (unsigned i = 3; i < 6; i++)
        ASSERT_OK(saved_disk_delete(&web, i));
    must("cp -a images copy");
    wanted.image = saved_disk_at(&web, "copy/web.000002.qcow2");
    assert_fails(layer_prune(&wanted, LAYER_PRUNE_REMOVE, &report), ERR_STATE);
    must("ln -s images link");
    wanted.image = saved_disk_at(&web, "link/web.000002.qcow2");
    assert_int_equal(prune_with(wanted, NULL), 3);
}

TEST(what_somebody_has_open_stays_with_what_it_stands_on)
{
    struct block *reader = NULL;

    save_and_merge();
    for (unsigned i = 3; i < 6; i++)
        ASSERT_OK(saved_disk_delete(&web, i));
    ASSERT_OK(disk_image_open(saved_disk_at(&web, "images/web.000004.qcow2"), "qcow2",
                              DISK_IMAGE_READ_ONLY, &reader));
    assert_int_equal(prune(), 1);
    assert_true(is_there(4) && is_there(3));
    ASSERT_OK(block_close(reader));
    assert_int_equal(prune(), 2);
}

TEST(saves_and_restores_at_work_are_waited_for)
{
    CLEANUP(cleanup_snapshot_store) struct snapshot_store *store = NULL;
    CLEANUP(cleanup_held_layers) struct held_layers *held = NULL;
    struct layer_prune_request wanted = request();
    struct layer_prune_report report;

    save_and_merge();
    const struct held_disk named = {.path = saved_disk_at(&web, "images/web.000003.qcow2"),
                                    .format = "qcow2"};
    ASSERT_OK(store_directory_open(saved_disk_at(&web, "a"), &store));
    ASSERT_OK(held_layers_take((struct held_purpose){.store = store, .machine = "web"}, &named, 1,
                               &held));
    assert_fails(layer_prune(&wanted, LAYER_PRUNE_TRY_REMOVE, &report), ERR_DENIED);
    held_layers_release(TAKE_PTR(held));
    ASSERT_OK(layer_prune(&wanted, LAYER_PRUNE_TRY_REMOVE, &report));
    layer_prune_report_finish(&report);
}

TEST(overlays_that_were_never_used_and_drafts_of_merges_go)
{
    CLEANUP(cleanup_fd) int fd = -1;

    save_and_merge();
    ASSERT_OK(block_flush(web.block));
    ASSERT_OK(disk_image_create_overlay(saved_disk_at(&web, "images/web.000010.qcow2"), web.path,
                                        "qcow2", SAVED_DISK_BYTES));
    must("cp images/web.000010.qcow2 images/web.000011.qcow2 &&"
         "truncate -s 1M images/web.000012.qcow2 && : > images/web.000013.qcow2 &&"
         "cp images/web.000009.qcow2 images/web.000014.qcow2 &&"
         "qemu-img rebase -u -b web.000009.qcow2 -F qcow2 images/web.000014.qcow2 &&"
         "cp images/web.000006.qcow2 images/web.000006.qcow2.merging &&"
         ": > images/web.000007.qcow2.merging && : > images/other.qcow2.merging");
    fd = open(saved_disk_at(&web, "images/web.000007.qcow2.merging"), O_RDWR | O_CLOEXEC);
    ASSERT_OK(image_lock_take(fd, "draft", IMAGE_LOCK_WRITER));
    assert_int_equal(prune(), 5);
    assert_true(is_there(14)); /* somebody wrote to it */
    must("test -e images/web.000007.qcow2.merging -a -e images/other.qcow2.merging");
}

TEST(an_overlay_that_a_machine_goes_on_in_stays_though_it_is_empty)
{
    struct block *reader = NULL;

    save_and_merge();
    ASSERT_OK(block_close(TAKE_PTR(web.block)));
    must("rm images/web.000009.qcow2");
    ASSERT_OK(disk_image_create_overlay(saved_disk_at(&web, "images/web.000009.qcow2"),
                                        saved_disk_at(&web, "images/web.000008.qcow2"), "qcow2",
                                        SAVED_DISK_BYTES));
    assert_int_equal(prune(), 0);
    must("chmod 644 images/web.0*"); /* as a copy may have it that loses modes */
    assert_int_equal(prune(), 0);
    ASSERT_OK(disk_image_open(web.path, "qcow2", DISK_IMAGE_READ_ONLY, &reader));
    ASSERT_OK(block_close(reader));
}

TEST(images_in_other_folders_are_known_once_they_were_saved)
{
    CLEANUP(cleanup_snapshot_store) struct snapshot_store *store = NULL;
    CLEANUP(cleanup_held_layers) struct held_layers *held = NULL;
    const char *folders[1];

    for (int i = 0; i < 9; i++)
        ASSERT_OK(saved_disk_save(&web, "a"));
    must("mkdir clones");
    folders[0] = saved_disk_at(&web, "images");
    ASSERT_OK(disk_image_create_overlay(saved_disk_at(&web, "clones/c.qcow2"),
                                        saved_disk_at(&web, "images/web.000004.qcow2"), "qcow2",
                                        SAVED_DISK_BYTES));
    const struct held_disk sealed = {
        .path = saved_disk_at(&web, "clones/c.qcow2"), .format = "qcow2", .is_sealing = true};
    ASSERT_OK(store_directory_open(saved_disk_at(&web, "b"), &store));
    ASSERT_OK(held_layers_take((struct held_purpose){.store = store,
                                                     .machine = "clone",
                                                     .is_saving = true,
                                                     .folders = folders,
                                                     .folder_count = 1},
                               &sealed, 1, &held));
    held_layers_release(TAKE_PTR(held));
    merge(6, 4);
    for (unsigned i = 3; i < 6; i++)
        ASSERT_OK(saved_disk_delete(&web, i));
    assert_int_equal(prune(), 1); /* 5 */
    assert_true(is_there(4) && is_there(3));
    must("mv clones away");
    expect_refused(ERR_IO);
    must("mv away clones && rm clones/c.qcow2");
    assert_int_equal(prune(), 2);
}

TEST(only_what_was_named_goes)
{
    struct layer_prune_request wanted = request();
    CLEANUP(cleanup_name_list) struct name_list only = {0};

    save_and_merge();
    for (unsigned i = 3; i < 6; i++)
        ASSERT_OK(saved_disk_delete(&web, i));
    ASSERT_OK(name_list_add(&only, "web.000005.qcow2"));
    ASSERT_OK(name_list_add(&only, "web.000003.qcow2"));
    wanted.only = &only;
    assert_int_equal(prune_with(wanted, NULL), 1); /* 4 still stands on 3 */
    assert_int_equal(prune(), 2);
}

/* With a guest's fake of a head in the raw image. */
TEST(two_disks_in_one_folder_do_not_mind_each_other)
{
    save_and_merge();
    must("cd images && qemu-img create -f qcow2 web2.qcow2 1M &&"
         "qemu-img create -f qcow2 -b web.000003.qcow2 -F qcow2 copy.000001.qcow2 &&"
         "qemu-img create -f qcow2 -u -b nowhere -F qcow2 fake 1M &&"
         "chmod u+w web.img && dd if=fake of=web.img conv=notrunc && chmod u-w web.img && rm fake");
    for (unsigned i = 0; i < web.count; i++)
        ASSERT_OK(saved_disk_delete(&web, i)); /* the base has other content */
    assert_int_equal(prune(), 2);
    assert_true(is_there(3));
}

#define WITH_DISK(test) cmocka_unit_test_setup_teardown(test, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_DISK(layers_go_when_no_snapshot_names_them_and_nothing_stands_on_them),
        WITH_DISK(a_snapshot_in_any_store_keeps_its_layers),
        WITH_DISK(layers_sealed_before_anything_was_written_down_stay_unless_told),
        WITH_DISK(a_store_that_is_named_is_known_from_then_on),
        WITH_DISK(nothing_is_removed_while_something_can_not_be_looked_at),
        WITH_DISK(a_copy_of_the_folder_is_left_alone),
        WITH_DISK(what_somebody_has_open_stays_with_what_it_stands_on),
        WITH_DISK(saves_and_restores_at_work_are_waited_for),
        WITH_DISK(overlays_that_were_never_used_and_drafts_of_merges_go),
        WITH_DISK(an_overlay_that_a_machine_goes_on_in_stays_though_it_is_empty),
        WITH_DISK(images_in_other_folders_are_known_once_they_were_saved),
        WITH_DISK(only_what_was_named_goes),
        WITH_DISK(two_disks_in_one_folder_do_not_mind_each_other),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
