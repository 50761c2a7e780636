/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/unit_test.h"
#include "snapshot/catalog.h"
#include "snapshot/store_directory.h"
#include "snapshot/store_memory.h"
#include "snapshot/testing/manifest_sample.h"

static void save(struct snapshot_store *store, const Ferry__SnapshotManifest *manifest)
{
    CLEANUP(cleanup_free) void *data = NULL;
    struct snapshot_draft *draft = NULL;
    size_t len = 0;

    ASSERT_OK(manifest_pack(manifest, &data, &len));
    ASSERT_OK(store_begin(store, manifest->machine, manifest->id, &draft));
    ASSERT_OK(draft_publish(draft, data, len, NULL));
    draft_close(draft);
}

static void save_parent_and_child(struct snapshot_store *store)
{
    CLEANUP(cleanup_manifest) Ferry__SnapshotManifest *manifest = manifest_sample();

    save(store, manifest);
    manifest_sample_make_child(manifest);
    save(store, manifest);
}

TEST(a_parent_is_not_deleted_and_the_child_is_named)
{
    CLEANUP(cleanup_snapshot_store) struct snapshot_store *store = NULL;

    ASSERT_OK(store_memory_create(&store));
    save_parent_and_child(store);
    struct err *err = catalog_delete(store, "web", SAMPLE_ID);

    assert_non_null(err);
    assert_non_null(strstr(err_message(err), SAMPLE_CHILD_ID));
    assert_fails(err, ERR_STATE);
    ASSERT_OK(catalog_delete(store, "web", SAMPLE_CHILD_ID));
    ASSERT_OK(catalog_delete(store, "web", SAMPLE_ID));
}

TEST(a_parent_is_not_deleted_whatever_the_clock_said_when_the_child_was_made)
{
    CLEANUP(cleanup_snapshot_store) struct snapshot_store *store = NULL;
    CLEANUP(cleanup_manifest) Ferry__SnapshotManifest *manifest = manifest_sample();

    ASSERT_OK(store_memory_create(&store));
    save(store, manifest);
    manifest_sample_make_child(manifest);
    manifest_sample_set(&manifest->id, "20260101T000000.000000Z-00000003");
    manifest_sample_set(&manifest->page_files[1]->snapshot, manifest->id);
    save(store, manifest);

    assert_fails(catalog_delete(store, "web", SAMPLE_ID), ERR_STATE);
    ASSERT_OK(catalog_delete(store, "web", manifest->id));
    ASSERT_OK(catalog_delete(store, "web", SAMPLE_ID));
}

TEST(while_a_manifest_can_not_be_read_only_its_snapshot_is_deleted)
{
    CLEANUP(cleanup_snapshot_store) struct snapshot_store *store = NULL;
    struct snapshot_draft *draft = NULL;

    ASSERT_OK(store_memory_create(&store));
    save_parent_and_child(store);
    ASSERT_OK(store_begin(store, "web", "20260101T000000.000000Z-00000003", &draft));
    ASSERT_OK(draft_publish(draft, "?", 1, NULL));
    draft_close(draft);

    struct err *err = catalog_delete(store, "web", SAMPLE_CHILD_ID);
    assert_non_null(err);
    assert_non_null(strstr(err_message(err), "delete it first"));
    err_free(err);
    ASSERT_OK(catalog_delete(store, "web", "20260101T000000.000000Z-00000003"));
    ASSERT_OK(catalog_delete(store, "web", SAMPLE_CHILD_ID));
}

TEST(the_newest_is_the_one_with_the_latest_time)
{
    CLEANUP(cleanup_snapshot_store) struct snapshot_store *store = NULL;
    struct snapshot_id id;

    ASSERT_OK(store_memory_create(&store));
    assert_fails(catalog_newest(store, "web", &id), ERR_NOT_FOUND);
    save_parent_and_child(store);
    ASSERT_OK(catalog_newest(store, "web", &id));

    assert_string_equal(id.text, SAMPLE_CHILD_ID);
}

TEST(a_manifest_in_another_snapshots_place_is_refused)
{
    CLEANUP(cleanup_snapshot_store) struct snapshot_store *store = NULL;
    CLEANUP(cleanup_manifest) Ferry__SnapshotManifest *manifest = manifest_sample();
    CLEANUP(cleanup_free) void *data = NULL;
    Ferry__SnapshotManifest *loaded = NULL;
    struct snapshot_draft *draft = NULL;
    size_t len = 0;

    ASSERT_OK(store_memory_create(&store));
    ASSERT_OK(manifest_pack(manifest, &data, &len));
    ASSERT_OK(store_begin(store, "db", SAMPLE_ID, &draft));
    ASSERT_OK(draft_publish(draft, data, len, NULL));
    draft_close(draft);

    assert_fails(catalog_load(store, "db", SAMPLE_ID, &loaded), ERR_INVALID);
}

static void expect_name(const char *text, const char *folder, const char *id)
{
    CLEANUP(cleanup_snapshot_store) struct snapshot_store *store = NULL;
    CLEANUP(cleanup_manifest) Ferry__SnapshotManifest *manifest = NULL;
    struct snapshot_name name;

    ASSERT_OK(catalog_open(text, folder, &store, &name));
    assert_string_equal(name.machine, "web");
    assert_string_equal(name.id.text, id);
    ASSERT_OK(catalog_load(store, name.machine, name.id.text, &manifest));
}

TEST(users_name_snapshots_by_machine_by_id_by_its_start_and_by_path)
{
    char folder[] = "/tmp/ferry-catalog-XXXXXX";
    char path[128];
    char command[128];
    struct snapshot_store *store = NULL;
    struct snapshot_name name;

    assert_non_null(mkdtemp(folder));
    ASSERT_OK(store_directory_open(folder, &store));
    save_parent_and_child(store);
    snapshot_store_destroy(store);

    expect_name("web", folder, SAMPLE_CHILD_ID);
    expect_name("web/" SAMPLE_ID, folder, SAMPLE_ID);
    expect_name("web/20261123T140732", folder, SAMPLE_ID);
    (void)snprintf(path, sizeof(path), "%s/web/%s", folder, SAMPLE_ID);
    expect_name(path, "/nonexistent", SAMPLE_ID);
    assert_fails(catalog_open("web/2026", folder, &store, &name), ERR_INVALID);
    assert_fails(catalog_open("web/2027", folder, &store, &name), ERR_NOT_FOUND);
    assert_fails(catalog_open("./missing", folder, &store, &name), ERR_NOT_FOUND);
    assert_fails(catalog_open("db", folder, &store, &name), ERR_NOT_FOUND);
    assert_fails(catalog_open("we b", folder, &store, &name), ERR_INVALID);
    assert_fails(catalog_open("/tmp", folder, &store, &name), ERR_INVALID);

    (void)snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_parent_is_not_deleted_and_the_child_is_named),
        cmocka_unit_test(a_parent_is_not_deleted_whatever_the_clock_said_when_the_child_was_made),
        cmocka_unit_test(while_a_manifest_can_not_be_read_only_its_snapshot_is_deleted),
        cmocka_unit_test(the_newest_is_the_one_with_the_latest_time),
        cmocka_unit_test(a_manifest_in_another_snapshots_place_is_refused),
        cmocka_unit_test(users_name_snapshots_by_machine_by_id_by_its_start_and_by_path),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
