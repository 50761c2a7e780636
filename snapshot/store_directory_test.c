/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/unit_test.h"
#include "snapshot/manifest.h"
#include "snapshot/store_directory.h"
#include "snapshot/store_memory.h"
#include "snapshot/testing/manifest_sample.h"

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof(folder), "/tmp/ferry-store-XXXXXX");
    return mkdtemp(folder) == NULL;
}

static int remove_folder(void **state)
{
    char command[128];

    (void)state;
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    return system(command);
}

/* Entries of STORE/web that look like snapshots, published or not. */
static unsigned count_folders(void)
{
    char path[128];
    unsigned count = 0;
    (void)snprintf(path, sizeof(path), "%s/web", folder);
    DIR *dir = opendir(path);

    for (struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;)
        count += entry->d_name[0] == '2';
    if (dir != NULL)
        (void)closedir(dir);
    return count;
}

static void save(struct snapshot_store *store, const char *id)
{
    struct snapshot_draft *draft = NULL;
    int fd = -1;

    ASSERT_OK(store_begin(store, "web", id, &draft));
    ASSERT_OK(draft_create_part(draft, SNAPSHOT_PART_STATE, &fd));
    assert_int_equal(write(fd, id, 4), 4);
    assert_int_equal(close(fd), 0);
    ASSERT_OK(draft_publish(draft, id, strlen(id), NULL));
    draft_close(draft);
}

/* Both stores keep the same promises. */
static void check_store(struct snapshot_store *store)
{
    CLEANUP(cleanup_name_list) struct name_list ids = {0};
    CLEANUP(cleanup_name_list) struct name_list machines = {0};
    CLEANUP(cleanup_name_list) struct name_list rest = {0};
    CLEANUP(cleanup_free) void *manifest = NULL;
    struct snapshot_draft *draft = NULL;
    size_t len = 0;
    int fd = -1;
    char start[4];

    save(store, SAMPLE_CHILD_ID);
    save(store, SAMPLE_ID);
    ASSERT_OK(store_begin(store, "db", SAMPLE_ID, &draft));
    ASSERT_OK(store_snapshots(store, "web", &ids));
    ASSERT_OK(store_machines(store, &machines));
    ASSERT_OK(store_read_manifest(store, "web", SAMPLE_ID, &manifest, &len));
    ASSERT_OK(store_open_part(store, "web", SAMPLE_ID, SNAPSHOT_PART_STATE, &fd));
    ASSERT_OK(store_remove(store, "web", SAMPLE_ID, NULL));

    assert_int_equal(ids.count, 2);
    assert_string_equal(ids.names[0], SAMPLE_ID);
    assert_int_equal(machines.count, 1); /* a draft is not shown */
    assert_memory_equal(manifest, SAMPLE_ID, len);
    assert_int_equal(pread(fd, start, 4, 0), 4); /* good although it was removed */
    assert_memory_equal(start, "2026", 4);
    ASSERT_OK(store_snapshots(store, "web", &rest));
    assert_int_equal(rest.count, 1);
    void *gone = NULL;
    assert_fails(store_read_manifest(store, "web", SAMPLE_ID, &gone, &len), ERR_NOT_FOUND);
    assert_int_equal(close(fd), 0);
    draft_close(draft);
}

TEST(a_folder_keeps_snapshots)
{
    CLEANUP(cleanup_snapshot_store) struct snapshot_store *store = NULL;

    ASSERT_OK(store_directory_open(folder, &store));

    check_store(store);
}

TEST(memory_keeps_snapshots_likewise)
{
    CLEANUP(cleanup_snapshot_store) struct snapshot_store *store = NULL;

    ASSERT_OK(store_memory_create(&store));

    check_store(store);
}

TEST(a_store_that_does_not_exist_is_empty)
{
    CLEANUP(cleanup_snapshot_store) struct snapshot_store *store = NULL;
    struct name_list machines = {0};

    ASSERT_OK(store_directory_open("/nonexistent/ferry", &store));
    ASSERT_OK(store_machines(store, &machines));

    assert_int_equal(machines.count, 0);
}

TEST(a_discarded_draft_leaves_no_folder)
{
    CLEANUP(cleanup_snapshot_store) struct snapshot_store *store = NULL;
    struct snapshot_draft *draft = NULL;

    ASSERT_OK(store_directory_open(folder, &store));
    ASSERT_OK(store_begin(store, "web", SAMPLE_ID, &draft));
    assert_int_equal(count_folders(), 1);
    draft_close(draft);

    assert_int_equal(count_folders(), 0);
}

/* A process that is killed in the middle of a save. */
static void leave_garbage(struct snapshot_store *store)
{
    struct snapshot_draft *draft = NULL;
    int status = 0;
    pid_t pid = fork();

    if (pid == 0) {
        int fd = -1;
        struct err *err = store_begin(store, "web", SAMPLE_ID, &draft);
        if (err == NULL)
            err = draft_create_part(draft, SNAPSHOT_PART_MEMORY, &fd);
        _exit(err == NULL ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

TEST(what_a_killed_save_left_is_cleared_away_by_the_next)
{
    CLEANUP(cleanup_snapshot_store) struct snapshot_store *store = NULL;
    struct name_list ids = {0};

    ASSERT_OK(store_directory_open(folder, &store));
    leave_garbage(store);
    assert_int_equal(count_folders(), 1);
    ASSERT_OK(store_snapshots(store, "web", &ids));
    assert_int_equal(ids.count, 0);
    save(store, SAMPLE_CHILD_ID);

    assert_int_equal(count_folders(), 1);
}

TEST(a_draft_that_somebody_works_on_is_not_cleared_away)
{
    CLEANUP(cleanup_snapshot_store) struct snapshot_store *store = NULL;
    struct snapshot_draft *draft = NULL;

    ASSERT_OK(store_directory_open(folder, &store));
    ASSERT_OK(store_begin(store, "web", SAMPLE_ID, &draft));
    save(store, SAMPLE_CHILD_ID);

    assert_int_equal(count_folders(), 2);
    ASSERT_OK(draft_publish(draft, "m", 1, SAMPLE_CHILD_ID));
    draft_close(draft);
}

TEST(a_child_is_not_published_when_its_parent_has_gone)
{
    CLEANUP(cleanup_snapshot_store) struct snapshot_store *store = NULL;
    struct snapshot_draft *draft = NULL;

    ASSERT_OK(store_directory_open(folder, &store));
    save(store, SAMPLE_ID);
    ASSERT_OK(store_begin(store, "web", SAMPLE_CHILD_ID, &draft));
    ASSERT_OK(store_remove(store, "web", SAMPLE_ID, NULL));

    assert_fails(draft_publish(draft, "m", 1, SAMPLE_ID), ERR_STATE);
    draft_close(draft);
    assert_int_equal(count_folders(), 0);
}

static void publish(struct snapshot_store *store, const Ferry__SnapshotManifest *manifest)
{
    CLEANUP(cleanup_free) void *data = NULL;
    struct snapshot_draft *draft = NULL;
    size_t len = 0;

    ASSERT_OK(manifest_pack(manifest, &data, &len));
    ASSERT_OK(store_begin(store, "web", manifest->id, &draft));
    ASSERT_OK(draft_publish(draft, data, len, NULL));
    draft_close(draft);
}

/* As any next save does. */
static void sweep(struct snapshot_store *store)
{
    struct snapshot_draft *draft = NULL;

    ASSERT_OK(store_begin(store, "web", "20270101T000000.000000Z-00000000", &draft));
    draft_close(draft);
}

static void remove_manifest(const char *id)
{
    char path[160];

    (void)snprintf(path, sizeof(path), "%s/web/%s/manifest", folder, id);
    assert_int_equal(unlink(path), 0);
}

TEST(what_others_stand_on_is_not_cleared_away_when_it_has_lost_its_manifest)
{
    CLEANUP(cleanup_snapshot_store) struct snapshot_store *store = NULL;
    CLEANUP(cleanup_manifest) Ferry__SnapshotManifest *manifest = manifest_sample();

    ASSERT_OK(store_directory_open(folder, &store));
    publish(store, manifest);
    manifest_sample_make_child(manifest);
    publish(store, manifest);
    remove_manifest(SAMPLE_ID);
    sweep(store);
    assert_int_equal(count_folders(), 2);

    ASSERT_OK(store_remove(store, "web", SAMPLE_CHILD_ID, NULL));
    sweep(store);
    assert_int_equal(count_folders(), 0);
}

TEST(nothing_is_cleared_away_while_a_manifest_can_not_be_read)
{
    CLEANUP(cleanup_snapshot_store) struct snapshot_store *store = NULL;
    CLEANUP(cleanup_manifest) Ferry__SnapshotManifest *manifest = manifest_sample();

    ASSERT_OK(store_directory_open(folder, &store));
    save(store, SAMPLE_CHILD_ID); /* its manifest is none */
    publish(store, manifest);
    remove_manifest(SAMPLE_ID);
    sweep(store);

    assert_int_equal(count_folders(), 2);
}

TEST(what_others_stand_on_of_a_deleted_one_stays_as_long_as_they_do)
{
    CLEANUP(cleanup_snapshot_store) struct snapshot_store *store = NULL;
    CLEANUP(cleanup_manifest) Ferry__SnapshotManifest *manifest = manifest_sample();
    CLEANUP(cleanup_name_list) struct name_list ids = {0};
    void *data = NULL;
    size_t len = 0;

    ASSERT_OK(store_directory_open(folder, &store));
    publish(store, manifest);
    manifest_sample_make_child(manifest);
    publish(store, manifest);
    ASSERT_OK(store_retire(store, "web", SAMPLE_ID));
    sweep(store);
    ASSERT_OK(store_snapshots(store, "web", &ids));
    assert_int_equal(ids.count, 1);
    assert_fails(store_read_manifest(store, "web", SAMPLE_ID, &data, &len), ERR_NOT_FOUND);
    assert_fails(store_retire(store, "web", SAMPLE_ID), ERR_NOT_FOUND);
    assert_int_equal(count_folders(), 2);

    ASSERT_OK(store_remove(store, "web", SAMPLE_CHILD_ID, NULL));
    assert_int_equal(count_folders(), 0);
}

TEST(one_that_nobody_stands_on_goes_at_once)
{
    CLEANUP(cleanup_snapshot_store) struct snapshot_store *store = NULL;
    CLEANUP(cleanup_manifest) Ferry__SnapshotManifest *manifest = manifest_sample();

    ASSERT_OK(store_directory_open(folder, &store));
    publish(store, manifest);
    ASSERT_OK(store_retire(store, "web", SAMPLE_ID));

    assert_int_equal(count_folders(), 0);
}

static struct err *refuse(struct snapshot_store *store, const char *machine, const char *id)
{
    char path[128];

    (void)store;
    (void)id;
    (void)snprintf(path, sizeof(path), "%s/%s/lock", folder, machine);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), -1);
    assert_int_equal(close(fd), 0);
    return err_new(ERR_STATE, "it is needed");
}

TEST(a_removal_asks_while_nobody_can_publish)
{
    CLEANUP(cleanup_snapshot_store) struct snapshot_store *store = NULL;
    CLEANUP(cleanup_name_list) struct name_list ids = {0};

    ASSERT_OK(store_directory_open(folder, &store));
    save(store, SAMPLE_ID);
    assert_fails(store_remove(store, "web", SAMPLE_ID, refuse), ERR_STATE);

    ASSERT_OK(store_snapshots(store, "web", &ids));
    assert_int_equal(ids.count, 1);
}

#define WITH_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(a_folder_keeps_snapshots),
        cmocka_unit_test(memory_keeps_snapshots_likewise),
        cmocka_unit_test(a_store_that_does_not_exist_is_empty),
        WITH_FOLDER(a_discarded_draft_leaves_no_folder),
        WITH_FOLDER(what_a_killed_save_left_is_cleared_away_by_the_next),
        WITH_FOLDER(a_draft_that_somebody_works_on_is_not_cleared_away),
        WITH_FOLDER(a_child_is_not_published_when_its_parent_has_gone),
        WITH_FOLDER(what_others_stand_on_is_not_cleared_away_when_it_has_lost_its_manifest),
        WITH_FOLDER(nothing_is_cleared_away_while_a_manifest_can_not_be_read),
        WITH_FOLDER(what_others_stand_on_of_a_deleted_one_stays_as_long_as_they_do),
        WITH_FOLDER(one_that_nobody_stands_on_goes_at_once),
        WITH_FOLDER(a_removal_asks_while_nobody_can_publish),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
