/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/checked_math.h"
#include "base/unit_test.h"
#include "snapshot/snapshot_store.h"
#include "snapshot/store_directory.h"
#include "snapshot/store_id.h"
#include "snapshot/store_manifests.h"
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

static void must(const char *command)
{
    char whole[512];

    (void)snprintf(whole, sizeof(whole), "cd '%s' && %s", folder, command);
    assert_int_equal(system(whole), 0);
}

static void save_sample(void)
{
    CLEANUP(cleanup_snapshot_store) struct snapshot_store *store = NULL;
    CLEANUP(cleanup_manifest) Ferry__SnapshotManifest *manifest = manifest_sample();
    CLEANUP(cleanup_free) void *data = NULL;
    struct snapshot_draft *draft = NULL;
    size_t len = 0;

    ASSERT_OK(manifest_pack(manifest, &data, &len));
    ASSERT_OK(store_directory_open(folder, &store));
    ASSERT_OK(store_begin(store, "web", SAMPLE_ID, &draft));
    ASSERT_OK(draft_publish(draft, data, len, NULL));
    draft_close(draft);
}

struct counter {
    struct store_manifests_visitor base;
    unsigned count;
};

static struct err *count_one(struct store_manifests_visitor *base,
                             const Ferry__SnapshotManifest *manifest)
{
    assert_string_equal(manifest->id, SAMPLE_ID);
    CONTAINER_OF(base, struct counter, base)->count++;
    return NULL;
}

static struct err *visit(unsigned *out_count)
{
    struct counter counter = {.base.visit = count_one};

    TRY(store_manifests_visit(folder, &counter.base));
    *out_count = counter.count;
    return NULL;
}

TEST(no_manifest_is_missed_whatever_its_folder_is_called)
{
    unsigned count = 9;

    ASSERT_OK(visit(&count));
    assert_int_equal(count, 0);
    save_sample();
    ASSERT_OK(visit(&count));
    assert_int_equal(count, 1);
    must(
        "cp -a web .hidden && mv web 'not a machine' && mv 'not a machine'/2* 'not a machine'/old");
    must("mkdir elsewhere && mv .hidden elsewhere/x && ln -s elsewhere/x linked");
    ASSERT_OK(visit(&count));
    assert_int_equal(count, 2);
}

TEST(what_is_not_published_is_not_there)
{
    unsigned count = 9;

    save_sample();
    must("cd web/2* && mv manifest manifest.removed && echo x > ../../file && mkdir ../../empty");
    ASSERT_OK(visit(&count));
    assert_int_equal(count, 0);
}

TEST(what_can_not_be_looked_at_is_an_error)
{
    static const char *const steps[] = {
        "ln -s /nonexistent/mount other",
        "cd web/2* && printf x >> manifest",
        "mkdir -p web/y/manifest",
        "ln -s /nonexistent/mount web/z",
    };
    unsigned count = 0;

    for (size_t i = 0; i < ARRAY_COUNT(steps); i++) {
        save_sample();
        ASSERT_OK(visit(&count));
        must(steps[i]);
        struct err *err = visit(&count);
        if (err == NULL)
            fail_msg("%s", steps[i]);
        err_free(err);
        must("rm -rf *");
    }
    must("rmdir `pwd`");
    assert_fails(visit(&count), ERR_NOT_FOUND);
    assert_int_equal(mkdir(folder, 0700), 0);
}

TEST(a_machines_folder_that_was_emptied_is_told_from_one_that_is_gone)
{
    save_sample();
    ASSERT_OK(store_manifests_check_machine(folder, "web"));
    must("mv web kept && mkdir web");
    assert_fails(store_manifests_check_machine(folder, "web"), ERR_STATE);
    must("rmdir web");
    ASSERT_OK(store_manifests_check_machine(folder, "web"));
}

TEST(a_store_keeps_its_id)
{
    struct store_id first, second;
    char below[128];

    ASSERT_OK(store_id_read(folder, &first));
    assert_string_equal(first.text, "");
    ASSERT_OK(store_id_make(folder, &first));
    assert_true(store_id_is_valid(first.text));
    ASSERT_OK(store_id_make(folder, &second));
    assert_string_equal(first.text, second.text);
    ASSERT_OK(store_id_read(folder, &second));
    assert_string_equal(first.text, second.text);

    (void)snprintf(below, sizeof(below), "%s/a/b", folder);
    assert_fails(store_id_read(below, &second), ERR_NOT_FOUND);
    ASSERT_OK(store_id_make(below, &second));
    assert_string_not_equal(first.text, second.text);
}

TEST(an_id_that_a_crash_cut_short_is_made_anew)
{
    struct store_id id;

    must("printf 0123456 > .store-id");
    ASSERT_OK(store_id_read(folder, &id));
    assert_string_equal(id.text, "");
    ASSERT_OK(store_id_make(folder, &id));
    assert_true(store_id_is_valid(id.text));
}

TEST(all_who_make_an_id_at_once_get_the_same)
{
    struct store_id id, other;
    int fds[2], status = 0;

    assert_int_equal(pipe(fds), 0);
    for (int i = 0; i < 8; i++) {
        if (fork() != 0)
            continue;
        struct err *err = store_id_make(folder, &id);
        _exit(err == NULL && write(fds[1], id.text, sizeof(id.text)) == sizeof(id.text) ? 0 : 1);
    }
    for (int i = 0; i < 8; i++) {
        assert_true(wait(&status) > 0);
        assert_int_equal(status, 0);
    }
    assert_int_equal(read(fds[0], id.text, sizeof(id.text)), sizeof(id.text));
    for (int i = 1; i < 8; i++) {
        assert_int_equal(read(fds[0], other.text, sizeof(other.text)), sizeof(other.text));
        assert_string_equal(id.text, other.text);
    }
    assert_int_equal(close(fds[0]), 0);
    assert_int_equal(close(fds[1]), 0);
}

#define WITH_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(no_manifest_is_missed_whatever_its_folder_is_called),
        WITH_FOLDER(what_is_not_published_is_not_there),
        WITH_FOLDER(what_can_not_be_looked_at_is_an_error),
        WITH_FOLDER(a_machines_folder_that_was_emptied_is_told_from_one_that_is_gone),
        WITH_FOLDER(a_store_keeps_its_id),
        WITH_FOLDER(an_id_that_a_crash_cut_short_is_made_anew),
        WITH_FOLDER(all_who_make_an_id_at_once_get_the_same),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
