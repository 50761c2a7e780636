/* SPDX-License-Identifier: Apache-2.0 */
/*
 * prune_command.c - see prune_command.h. Tested by: tests/system/prune_test.py
 *
 * Each disk on its own: what keeps one from being looked at does not keep others. Between asking
 * and removing all is looked at once more, and nothing goes that was not shown.
 */
#include "tools/vm-snapshot/prune_command.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/file_io.h"
#include "base/log.h"
#include "control/runtime_folder.h"
#include "snapshot/layer_prune.h"
#include "snapshot/layer_record.h"
#include "snapshot/store_manifests.h"
#include "storage/overlay_file.h"
#include "tools/program_json.h"
#include "tools/program_units.h"

struct pruned_disk {
    const char *image;
    struct layer_prune_report report;
    struct err *err; /* owned; NULL: none */
};

struct prune_run {
    const struct snapshot_settings *settings;
    struct name_list stores;   /* that exist */
    struct name_list images;   /* one of each disk */
    struct pruned_disk *disks; /* owned */
};

struct disk_collector {
    struct store_manifests_visitor base;
    struct name_list *images;
    struct name_list records; /* what tells disks apart */
};

static const char *kind_name(enum layer_verdict verdict)
{
    switch (verdict) {
    case LAYER_DRAFT: return "draft";
    case LAYER_ABANDONED: return "unused";
    default: return "layer";
    }
}

static struct err *add_disk(struct disk_collector *collector, const Ferry__SnapshotDisk *disk)
{
    CLEANUP(cleanup_free) char *record = NULL;

    if (disk->read_only)
        return NULL;
    TRY(overlay_file_sibling(disk->path, "stores", &record));
    for (size_t i = 0; i < collector->records.count; i++)
        if (strcmp(collector->records.names[i], record) == 0)
            return NULL;
    TRY(name_list_add(&collector->records, record));
    return name_list_add(collector->images, disk->path);
}

static struct err *add_disks(struct store_manifests_visitor *base,
                             const Ferry__SnapshotManifest *manifest)
{
    for (size_t i = 0; i < manifest->n_disks; i++)
        TRY(add_disk(CONTAINER_OF(base, struct disk_collector, base), manifest->disks[i]));
    return NULL;
}

static struct err *find_stores(struct prune_run *run)
{
    const struct option_list *given = &run->settings->stores;
    CLEANUP(cleanup_free) char *folder = NULL;

    for (size_t i = 0; i < given->count; i++)
        TRY(name_list_add(&run->stores, given->values[i]));
    if (given->count != 0)
        return NULL;
    TRY(state_folder("snapshots", &folder));
    return access(folder, F_OK) == 0 ? name_list_add(&run->stores, folder) : NULL;
}

static struct err *find_images(struct prune_run *run, const char *const *images, size_t count)
{
    struct disk_collector collector = {.base.visit = add_disks, .images = &run->images};
    struct err *err = NULL;

    for (size_t i = 0; i < count; i++)
        TRY(name_list_add(&run->images, images[i]));
    for (size_t i = 0; count == 0 && i < run->stores.count && err == NULL; i++)
        err = store_manifests_visit(run->stores.names[i], &collector.base);
    name_list_finish(&collector.records);
    return err;
}

static struct layer_prune_request request_for(const struct prune_run *run, const char *image)
{
    return (struct layer_prune_request){
        .image = image,
        .stores = (const char *const *)run->stores.names,
        .store_count = run->stores.count,
        .image_folders = run->settings->image_folders.values,
        .image_folder_count = run->settings->image_folders.count,
        .is_unknown_too = run->settings->unrecorded,
    };
}

static struct err *ask(const struct snapshot_settings *settings, const char *question)
{
    char answer[16] = "";

    if (settings->yes)
        return NULL;
    if (isatty(STDIN_FILENO) != 1)
        return err_new(ERR_STATE, "there is no terminal to ask whether files may be removed; say "
                                  "--yes, or --dry-run to be told only");
    (void)fprintf(stderr, "%s [y/N] ", question);
    if (fgets(answer, sizeof(answer), stdin) == NULL || (answer[0] != 'y' && answer[0] != 'Y'))
        return err_new(ERR_CANCELLED, "nothing was removed");
    return NULL;
}

static struct err *forget_one(const struct prune_run *run, const char *path)
{
    bool is_found = false;

    for (size_t i = 0; i < run->images.count; i++) {
        CLEANUP(cleanup_fd) int fd = -1;
        TRY(layer_lock_take(run->images.names[i], LAYER_LOCK_REMOVE, &fd));
        struct err *err = layer_record_forget(run->images.names[i], fd, path);
        if (err != NULL && err_kind(err) != ERR_NOT_FOUND)
            return err;
        is_found = is_found || err == NULL;
        err_free(err);
    }
    if (!is_found)
        return err_new(ERR_NOT_FOUND, "no disk has '%s' written down as a store or a folder", path);
    return NULL;
}

static struct err *forget(const struct prune_run *run)
{
    const struct option_list *paths = &run->settings->forget;

    if (paths->count == 0)
        return NULL;
    if (run->settings->dry_run)
        return err_new(ERR_INVALID, "--forget changes what is written down, which --dry-run does "
                                    "not");
    TRY(ask(run->settings, "Snapshots and images there can lose what they stand on. Forget them?"));
    for (size_t i = 0; i < paths->count; i++)
        TRY(forget_one(run, paths->values[i]));
    return NULL;
}

static void look(struct prune_run *run)
{
    for (size_t i = 0; i < run->images.count; i++) {
        struct layer_prune_request request = request_for(run, run->images.names[i]);
        run->disks[i].image = run->images.names[i];
        run->disks[i].err = layer_prune(&request, LAYER_PRUNE_LOOK, &run->disks[i].report);
    }
}

static struct err *only_those(const struct layer_prune_report *report, struct name_list *names)
{
    for (size_t i = 0; i < report->count; i++)
        TRY(name_list_add(names, name_in_folder(report->files[i].path)));
    return NULL;
}

static struct err *remove_shown(const struct prune_run *run, struct pruned_disk *disk)
{
    CLEANUP(cleanup_name_list) struct name_list names = {0};
    struct layer_prune_request request = request_for(run, disk->image);
    struct layer_prune_report done;

    TRY(only_those(&disk->report, &names));
    request.only = &names;
    TRY(layer_prune(&request, LAYER_PRUNE_REMOVE, &done));
    layer_prune_report_finish(&disk->report);
    disk->report = done;
    return NULL;
}

static struct prune_prospect total_of(const struct prune_run *run)
{
    struct prune_prospect total = {0};

    for (size_t i = 0; i < run->images.count; i++) {
        total.file_count += run->disks[i].report.count;
        total.bytes += run->disks[i].report.bytes;
    }
    return total;
}

static void print_disk(const struct pruned_disk *disk)
{
    const struct layer_prune_report *report = &disk->report;

    for (size_t i = 0; i < report->count; i++)
        (void)printf("%10s  %-6s  %s\n", readable_bytes(report->files[i].bytes).text,
                     kind_name(report->files[i].verdict), report->files[i].path);
    if (report->used_count != 0)
        (void)printf("  %zu more of '%s' are in use\n", report->used_count, disk->image);
    if (report->unknown_count != 0)
        (void)printf(
            "  %zu layers of '%s' stay: it was not written down which stores need them; if "
            "you name all, say --unrecorded\n",
            report->unknown_count, disk->image);
}

static json_t *disk_json(const struct pruned_disk *disk)
{
    json_t *files = json_array();

    for (size_t i = 0; i < disk->report.count; i++)
        json_array_append_new(files, json_pack("{s:o, s:s, s:I}", "path",
                                               program_json_text(disk->report.files[i].path),
                                               "kind", kind_name(disk->report.files[i].verdict),
                                               "bytes", (json_int_t)disk->report.files[i].bytes));
    json_t *object = json_pack("{s:o, s:o, s:I, s:I}", "image", program_json_text(disk->image),
                               "files", files, "in_use", (json_int_t)disk->report.used_count,
                               "unrecorded", (json_int_t)disk->report.unknown_count);
    if (disk->err != NULL)
        json_object_set_new(object, "error", program_json_text(err_message(disk->err)));
    return object;
}

static void print_json(const struct prune_run *run)
{
    struct prune_prospect total = total_of(run);
    json_t *disks = json_array();

    for (size_t i = 0; i < run->images.count; i++)
        json_array_append_new(disks, disk_json(&run->disks[i]));
    program_json_print(json_pack("{s:b, s:I, s:I, s:o}", "dry_run", (int)run->settings->dry_run,
                                 "files", (json_int_t)total.file_count, "bytes",
                                 (json_int_t)total.bytes, "disks", disks));
}

/* All errors are told, and the first one ends the program. */
static struct err *take_error(struct prune_run *run)
{
    struct err *first = NULL;

    for (size_t i = 0; i < run->images.count; i++) {
        struct err *err = TAKE_PTR(run->disks[i].err);
        if (first == NULL)
            first = err;
        else if (err != NULL)
            log_err(LOG_ERROR, "disk left as it is", err);
    }
    return first;
}

static struct err *remove_all(struct prune_run *run)
{
    struct prune_prospect total = total_of(run);
    char question[128];

    if (run->settings->dry_run || total.file_count == 0)
        return NULL;
    (void)snprintf(question, sizeof(question), "Remove %zu files, %s?", total.file_count,
                   readable_bytes(total.bytes).text);
    TRY(ask(run->settings, question));
    for (size_t i = 0; i < run->images.count; i++)
        if (run->disks[i].err == NULL && run->disks[i].report.count != 0)
            run->disks[i].err = remove_shown(run, &run->disks[i]);
    return NULL;
}

static struct err *prune(struct prune_run *run)
{
    look(run);
    if (!run->settings->json)
        for (size_t i = 0; i < run->images.count; i++)
            print_disk(&run->disks[i]);
    TRY(remove_all(run));
    if (run->settings->json)
        print_json(run);
    else
        (void)printf("%s %zu files, %s\n", run->settings->dry_run ? "would remove" : "removed",
                     total_of(run).file_count, readable_bytes(total_of(run).bytes).text);
    return take_error(run);
}

static struct err *find_and_prune(struct prune_run *run, const char *const *images, size_t count)
{
    TRY(find_stores(run));
    TRY(find_images(run, images, count));
    TRY(forget(run));
    run->disks = calloc(run->images.count + 1, sizeof(run->disks[0]));
    if (run->disks == NULL)
        return err_new(ERR_NO_MEMORY, "list disks");
    return prune(run);
}

struct err *snapshot_command_prune(const struct snapshot_settings *settings,
                                   const char *const *images, size_t image_count)
{
    struct prune_run run = {.settings = settings};

    struct err *err = find_and_prune(&run, images, image_count);
    for (size_t i = 0; run.disks != NULL && i < run.images.count; i++) {
        layer_prune_report_finish(&run.disks[i].report);
        err_free(run.disks[i].err);
    }
    free(run.disks);
    name_list_finish(&run.stores);
    name_list_finish(&run.images);
    return err;
}

struct err *prune_look_at(const Ferry__SnapshotManifest *manifest,
                          struct prune_prospect *out_prospect)
{
    struct prune_prospect prospect = {0};

    for (size_t i = 0; i < manifest->n_disks; i++) {
        struct layer_prune_request request = {.image = manifest->disks[i]->path};
        struct layer_prune_report report;
        if (manifest->disks[i]->read_only)
            continue;
        TRY(layer_prune(&request, LAYER_PRUNE_LOOK, &report));
        prospect.file_count += report.count;
        prospect.bytes += report.bytes;
        layer_prune_report_finish(&report);
    }
    *out_prospect = prospect;
    return NULL;
}
