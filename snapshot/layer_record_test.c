/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/checked_math.h"
#include "base/file_io.h"
#include "base/unit_test.h"
#include "snapshot/layer_record.h"
#include "snapshot/layer_record_list.h"

#define ID_A "0123456789abcdef0123456789abcdef"
#define ID_B "0123456789abcdef0123456789abcde0"

static char folder[64];
static char image[96];

static int make_folder(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof(folder), "/tmp/ferry-record-XXXXXX");
    if (mkdtemp(folder) == NULL)
        return 1;
    (void)snprintf(image, sizeof(image), "%s/web.000003.qcow2", folder);
    return 0;
}

static int remove_folder(void **state)
{
    char command[128];

    (void)state;
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    return system(command);
}

static struct layer_need need(const char *store, const char *id, unsigned number)
{
    struct layer_need need = {
        .store_path = store, .machine = "web", .is_sealing = true, .number = number};

    (void)snprintf(need.store_id.text, sizeof(need.store_id.text), "%s", id);
    return need;
}

static struct err *note(struct layer_need what)
{
    CLEANUP(cleanup_fd) int fd = -1;

    TRY(layer_lock_take(image, LAYER_LOCK_NEED, &fd));
    return layer_record_note(image, fd, &what);
}

static Ferry__LayerRecord *read_record(void)
{
    Ferry__LayerRecord *record = NULL;

    ASSERT_OK(layer_record_read(image, &record));
    assert_non_null(record);
    return record;
}

static ino_t record_inode(void)
{
    char path[128];
    struct stat status;

    (void)snprintf(path, sizeof(path), "%s/web.stores", folder);
    assert_int_equal(stat(path, &status), 0);
    return status.st_ino;
}

TEST(what_is_noted_is_read_again_once)
{
    Ferry__LayerRecord *record = NULL;

    ASSERT_OK(layer_record_read(image, &record));
    assert_null(record);
    ASSERT_OK(note(need("/a", ID_A, 3)));
    ASSERT_OK(note(need("/b", ID_B, 4)));
    ino_t before = record_inode();
    ASSERT_OK(note(need("/a", ID_A, 4)));
    assert_int_equal(record_inode(), before); /* nothing is new, so nothing is written */
    ASSERT_OK(note(need("/a", ID_B, 9)));     /* another store that took its place */

    record = read_record();
    assert_int_equal(record->n_folders, 1);
    assert_string_equal(record->folders[0], folder);
    assert_int_equal(record->n_stores, 3);
    assert_string_equal(record->stores[1]->path, "/b");
    assert_int_equal(record->stores[0]->n_machines, 1);
    assert_int_equal(record->n_sealed, 2);
    assert_true(layer_record_knows(record, 3) && layer_record_knows(record, 4));
    assert_true(layer_record_knows(record, 9));
    assert_false(layer_record_knows(record, 2) || layer_record_knows(record, 5));
    layer_record_free(record);
}

TEST(numbers_become_ranges_in_any_order)
{
    Ferry__LayerRecord record = FERRY__LAYER_RECORD__INIT;
    bool is_changed = false, is_known[200] = {false};

    srand(3);
    for (unsigned i = 0; i < 400; i++) {
        unsigned number = (unsigned)rand() % ARRAY_COUNT(is_known);
        is_changed = false;
        ASSERT_OK(layer_record_add_sealed(&record, number, &is_changed));
        assert_int_equal(is_changed, !is_known[number]);
        is_known[number] = true;
        size_t ranges = 0;
        for (unsigned n = 0; n < ARRAY_COUNT(is_known); n++) {
            assert_int_equal(layer_record_knows(&record, n), is_known[n]);
            ranges += is_known[n] && (n == 0 || !is_known[n - 1]);
        }
        assert_int_equal(record.n_sealed, ranges);
    }
    for (size_t i = 0; i < record.n_sealed; i++)
        free(record.sealed[i]);
    free(record.sealed);
}

static struct err *write_file(const Ferry__LayerRecord *record)
{
    Ferry__LayerRecordFile file = FERRY__LAYER_RECORD_FILE__INIT;
    uint8_t inner[512], data[600];
    char path[128];

    file.record.data = inner;
    file.record.len = ferry__layer_record__pack(record, inner);
    file.checksum = XXH3_64bits(inner, file.record.len);
    (void)snprintf(path, sizeof(path), "%s/web.stores", folder);
    return file_replace(path, data, ferry__layer_record_file__pack(&file, data), 0644);
}

TEST(a_damaged_record_is_begun_anew_and_one_of_a_newer_version_is_not_touched)
{
    Ferry__LayerRecord newer = FERRY__LAYER_RECORD__INIT;
    Ferry__LayerRecord *record = NULL;
    char path[128];

    ASSERT_OK(note(need("/a", ID_A, 3)));
    (void)snprintf(path, sizeof(path), "%s/web.stores", folder);
    assert_int_equal(truncate(path, 20), 0);
    assert_fails(layer_record_read(image, &record), ERR_INVALID);
    ASSERT_OK(note(need("/b", ID_B, 4)));
    record = read_record();
    assert_int_equal(record->n_stores, 1);
    assert_false(layer_record_knows(record, 3));
    assert_true(layer_record_knows(record, 4));
    layer_record_free(record);

    newer.format = 2;
    ASSERT_OK(write_file(&newer));
    assert_fails(layer_record_read(image, &record), ERR_INCOMPATIBLE);
    assert_fails(note(need("/b", ID_B, 4)), ERR_INCOMPATIBLE);
}

TEST(a_record_that_breaks_its_promises_is_refused)
{
    Ferry__LayerRecordRange ranges[2] = {FERRY__LAYER_RECORD_RANGE__INIT,
                                         FERRY__LAYER_RECORD_RANGE__INIT};
    Ferry__LayerRecordRange *list[2] = {&ranges[0], &ranges[1]};
    Ferry__LayerRecordStore store = FERRY__LAYER_RECORD_STORE__INIT;
    Ferry__LayerRecordStore *stores[1] = {&store};
    Ferry__LayerRecord record = FERRY__LAYER_RECORD__INIT;
    Ferry__LayerRecord *read = NULL;
    char *relative[1] = {(char *)(uintptr_t)"x"};

    record.format = LAYER_RECORD_FORMAT;
    record.sealed = list;
    record.n_sealed = 2;
    ranges[0].first = 5, ranges[0].last = 7, ranges[1].first = 9, ranges[1].last = 9;
    ASSERT_OK(write_file(&record));
    ASSERT_OK(layer_record_read(image, &read));
    layer_record_free(read);
    ranges[1].first = 7;
    ASSERT_OK(write_file(&record));
    assert_fails(layer_record_read(image, &read), ERR_INVALID);
    ranges[1].first = 10;
    ASSERT_OK(write_file(&record));
    assert_fails(layer_record_read(image, &read), ERR_INVALID);
    record.n_sealed = 0;
    record.folders = relative;
    record.n_folders = 1;
    ASSERT_OK(write_file(&record));
    assert_fails(layer_record_read(image, &read), ERR_INVALID);
    record.n_folders = 0;
    record.stores = stores;
    record.n_stores = 1;
    store.path = (char *)(uintptr_t)"/a";
    store.id = (char *)(uintptr_t)"short";
    ASSERT_OK(write_file(&record));
    assert_fails(layer_record_read(image, &read), ERR_INVALID);
    store.id = (char *)(uintptr_t)ID_A;
    ASSERT_OK(write_file(&record));
    ASSERT_OK(layer_record_read(image, &read));
    layer_record_free(read);
}

TEST(what_is_gone_for_good_is_struck_out)
{
    CLEANUP(cleanup_fd) int fd = -1;
    struct layer_need clone = {.image_folder = "/clones"};

    ASSERT_OK(note(need("/a", ID_A, 3)));
    ASSERT_OK(note(need("/b", ID_B, 3)));
    ASSERT_OK(note(clone));
    ASSERT_OK(layer_lock_take(image, LAYER_LOCK_REMOVE, &fd));
    assert_fails(layer_record_forget(image, fd, "/c"), ERR_NOT_FOUND);
    ASSERT_OK(layer_record_forget(image, fd, "/a"));
    ASSERT_OK(layer_record_forget(image, fd, "/clones"));

    Ferry__LayerRecord *record = read_record();
    assert_int_equal(record->n_stores, 1);
    assert_string_equal(record->stores[0]->path, "/b");
    assert_int_equal(record->n_image_folders, 0);
    assert_true(layer_record_knows(record, 3));
    layer_record_free(record);
}

TEST(who_needs_layers_and_who_removes_some_wait_for_each_other)
{
    int first = -1, second = -1, remover = -1;

    ASSERT_OK(layer_lock_take(image, LAYER_LOCK_NEED, &first));
    ASSERT_OK(layer_lock_take(image, LAYER_LOCK_NEED, &second));
    assert_fails(layer_lock_take(image, LAYER_LOCK_TRY_REMOVE, &remover), ERR_DENIED);
    assert_int_equal(close(first), 0);
    assert_fails(layer_lock_take(image, LAYER_LOCK_TRY_REMOVE, &remover), ERR_DENIED);
    assert_int_equal(close(second), 0);
    ASSERT_OK(layer_lock_take(image, LAYER_LOCK_TRY_REMOVE, &remover));

    /* A process that waits gets it when the other one ends, however that does. */
    pid_t pid = fork();
    if (pid == 0) {
        (void)close(remover); /* it is the same open file */
        struct err *err = layer_lock_take(image, LAYER_LOCK_NEED, &first);
        _exit(err == NULL ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, WNOHANG), 0);
    assert_int_equal(close(remover), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

TEST(many_note_at_once_and_nothing_is_lost)
{
    int status = 0;

    for (unsigned child = 0; child < 8; child++) {
        if (fork() != 0)
            continue;
        struct err *err = NULL;
        char store[32];
        for (unsigned i = 0; i < 10 && err == NULL; i++) {
            (void)snprintf(store, sizeof(store), "/store%u.%u", child, i);
            err = note(need(store, ID_A, child * 10 + i));
        }
        _exit(err == NULL ? 0 : 1);
    }
    for (unsigned child = 0; child < 8; child++) {
        assert_true(wait(&status) > 0);
        assert_int_equal(status, 0);
    }
    Ferry__LayerRecord *record = read_record();
    assert_int_equal(record->n_stores, 80);
    assert_int_equal(record->n_sealed, 1);
    layer_record_free(record);
}

#define WITH_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(what_is_noted_is_read_again_once),
        cmocka_unit_test(numbers_become_ranges_in_any_order),
        WITH_FOLDER(a_damaged_record_is_begun_anew_and_one_of_a_newer_version_is_not_touched),
        WITH_FOLDER(a_record_that_breaks_its_promises_is_refused),
        WITH_FOLDER(what_is_gone_for_good_is_struck_out),
        WITH_FOLDER(who_needs_layers_and_who_removes_some_wait_for_each_other),
        WITH_FOLDER(many_note_at_once_and_nothing_is_lost),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
