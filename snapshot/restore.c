/* SPDX-License-Identifier: Apache-2.0 */
/*
 * restore.c - see restore.h.
 *
 * Until "start the machine" nothing but files has been looked at, and the new overlays are all that
 * there is to undo. From there on until "resume" the machine's process ends by itself when the
 * connection to it closes, so that a restore which dies leaves nothing running.
 */
#include "snapshot/restore.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/cancel.h"
#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file_io.h"
#include "base/limits.h"
#include "base/test_hook.h"
#include "control/control_client.h"
#include "control/machine_process.h"
#include "snapshot/catalog.h"
#include "snapshot/held_layers.h"
#include "snapshot/sealed_disk.h"
#include "snapshot/snapshot_parts.h"
#include "snapshot/verify.h"
#include "storage/disk_image.h"

struct restore {
    struct snapshot_store *store;
    const struct snapshot_name *from;
    struct restore_settings settings;

    Ferry__SnapshotManifest *manifest; /* owned */
    struct snapshot_parts *parts;      /* owned */
    struct held_layers *held;          /* owned */
    char *overlays[MACHINE_DISKS_MAX]; /* owned: paths of created images */
    size_t overlay_count;
    struct control_client *client; /* owned unless given */
    bool is_client_given;
    pid_t pid;      /* 0: not started by us */
    char *log_path; /* owned */

    uint64_t start_ns;
    uint64_t first_run_ns;
    struct phase_timings timings;
};

struct phase_row {
    const char *name;
    struct err *(*run)(struct restore *restore);
    void (*undo)(struct restore *restore); /* NULL: nothing; may meet a half-done phase */
};

static Ferry__MachineConfig *config_of(struct restore *restore)
{
    return restore->manifest->description->config;
}

static struct err *replace_text(char **text, const char *by)
{
    char *copy = strdup(by);

    if (copy == NULL)
        return err_new(ERR_NO_MEMORY, "describe the machine");
    if (*text != protobuf_c_empty_string)
        free(*text);
    *text = copy;
    return NULL;
}

static struct err *add_image_folder(struct restore *restore, const char *path)
{
    Ferry__MachineConfig *config = config_of(restore);
    char **folders = realloc(config->image_folders,
                             (config->n_image_folders + 1) * sizeof(config->image_folders[0]));

    if (folders == NULL)
        return err_new(ERR_NO_MEMORY, "describe the machine");
    config->image_folders = folders;
    if (access(path, F_OK) != 0)
        return err_errno(errno, "folder of images '%s'", path);
    TRY(path_absolute(path, &folders[config->n_image_folders]));
    config->n_image_folders++;
    return NULL;
}

/* Once each. */
static struct err *add_folder_of(struct restore *restore, const Ferry__SnapshotDisk *disk)
{
    CLEANUP(cleanup_free) char *folder = NULL;
    const Ferry__MachineConfig *config = config_of(restore);

    TRY(folder_of(disk->path, &folder));
    for (size_t i = 0; i < config->n_image_folders; i++)
        if (strcmp(config->image_folders[i], folder) == 0)
            return NULL;
    return add_image_folder(restore, folder);
}

/* Those that the restored machine may use come from its description. Overlays elsewhere stand on
 * images that it was trusted with before. */
static struct err *add_image_folders(struct restore *restore)
{
    for (size_t i = 0; i < restore->settings.image_folder_count; i++)
        TRY(add_image_folder(restore, restore->settings.image_folders[i]));
    for (size_t i = 0; restore->settings.overlay_folder != NULL && i < restore->manifest->n_disks;
         i++)
        if (!restore->manifest->disks[i]->read_only)
            TRY(add_folder_of(restore, restore->manifest->disks[i]));
    return NULL;
}

static struct sealed_disk_folders folders_of(struct restore *restore)
{
    return (struct sealed_disk_folders){.paths =
                                            (const char *const *)config_of(restore)->image_folders,
                                        .count = config_of(restore)->n_image_folders};
}

/* The files of changes are those of the machine that was saved, which may be running. */
static void drop_trackers(Ferry__MachineConfig *config)
{
    for (size_t i = 0; i < config->n_disks; i++) {
        Ferry__DiskConfig *disk = config->disks[i];
        while (disk->n_trackers > 0)
            free(disk->trackers[--disk->n_trackers]);
        free(TAKE_PTR(disk->trackers));
    }
}

static struct err *set_tap(struct restore *restore, const char *text)
{
    const char *tap = strchr(text, '=');
    size_t len = tap == NULL ? 0 : (size_t)(tap - text);

    if (len == 0 || tap[1] == '\0')
        return err_new(ERR_INVALID, "'%s' is not a network's id, '=', and a tap interface", text);
    for (size_t i = 0; i < config_of(restore)->n_nets; i++) {
        Ferry__NetConfig *net = config_of(restore)->nets[i];
        if (strncmp(net->id, text, len) != 0 || net->id[len] != '\0')
            continue;
        net->tap_by_fd = false;
        return replace_text(&net->tap, tap + 1);
    }
    return err_new(ERR_NOT_FOUND, "the machine has no network '%.*s'", (int)len, text);
}

static struct err *read_manifest(struct restore *restore)
{
    TRY(catalog_load(restore->store, restore->from->machine, restore->from->id.text,
                     &restore->manifest));
    if (restore->settings.name != NULL) {
        TRY(replace_text(&config_of(restore)->name, restore->settings.name));
        drop_trackers(config_of(restore));
    }
    for (size_t i = 0; i < restore->settings.tap_count; i++)
        TRY(set_tap(restore, restore->settings.taps[i]));
    return add_image_folders(restore);
}

/* Only to refuse early: in the end the new process takes the name, or fails to. One that does not
 * answer may be about to end. */
static struct err *check_name(struct restore *restore)
{
    struct control_client *running = NULL;
    const char *name = config_of(restore)->name;

    struct err *err = control_client_connect(name, restore->settings.program, &running);
    control_client_close(running);
    if (err == NULL)
        return err_new(ERR_STATE,
                       "machine '%s' is running; stop it first (vm-ctl quit %s), or give the "
                       "restored one another name (--name)",
                       name, name);
    err_free(err);
    return NULL;
}

static struct err *check_nets(struct restore *restore)
{
    for (size_t i = 0; i < config_of(restore)->n_nets; i++)
        if (config_of(restore)->nets[i]->tap_by_fd)
            return err_new(ERR_INCOMPATIBLE,
                           "network '%s' was handed over as a descriptor, which can not be found "
                           "again; say which tap interface it has with --tap %s=NAME",
                           config_of(restore)->nets[i]->id, config_of(restore)->nets[i]->id);
    return NULL;
}

static struct err *verify_all(struct restore *restore)
{
    struct verify_report report;

    TRY(snapshot_verify(restore->store, restore->from->machine, restore->from->id.text,
                        folders_of(restore), &report));
    struct err *err = verify_report_error(&report);
    verify_report_finish(&report);
    return err;
}

/* Until the machine runs nobody removes layers of these disks. */
static struct err *hold_layers(struct restore *restore)
{
    const Ferry__SnapshotManifest *manifest = restore->manifest;
    struct held_disk disks[MACHINE_DISKS_MAX];

    for (size_t i = 0; i < manifest->n_disks; i++)
        disks[i] = (struct held_disk){.path = manifest->disks[i]->path,
                                      .format = manifest->disks[i]->format,
                                      .is_read_only = manifest->disks[i]->read_only,
                                      .overlay_folder = restore->settings.overlay_folder};
    return held_layers_take((struct held_purpose){.store = restore->store,
                                                  .machine = restore->from->machine,
                                                  .folders = folders_of(restore).paths,
                                                  .folder_count = folders_of(restore).count},
                            disks, manifest->n_disks, &restore->held);
}

static struct err *check(struct restore *restore)
{
    if (!restore->is_client_given)
        TRY(check_name(restore));
    TRY(check_nets(restore));
    if (restore->settings.is_verified)
        TRY(verify_all(restore));
    TRY(snapshot_parts_open(restore->store, restore->manifest, &restore->parts));
    for (size_t i = 0; i < restore->manifest->n_disks; i++)
        TRY(sealed_disk_check(restore->manifest->disks[i], folders_of(restore)));
    return hold_layers(restore);
}

/* Which overlay_file_next counts on from. */
static struct err *place_overlay(struct restore *restore, const char *sealed_path, char **out_path)
{
    CLEANUP(cleanup_free) char *folder = NULL;

    if (restore->settings.overlay_folder == NULL) {
        *out_path = strdup(sealed_path);
        return *out_path == NULL ? err_new(ERR_NO_MEMORY, "name an overlay") : NULL;
    }
    TRY(path_absolute(restore->settings.overlay_folder, &folder));
    if (asprintf(out_path, "%s/%s", folder, name_in_folder(sealed_path)) < 0)
        return err_new(ERR_NO_MEMORY, "name an overlay");
    return NULL;
}

static struct err *make_overlay(struct restore *restore, size_t index)
{
    const Ferry__SnapshotDisk *sealed = restore->manifest->disks[index];
    Ferry__DiskConfig *disk = config_of(restore)->disks[index];
    CLEANUP(cleanup_free) char *place = NULL;

    TRY(replace_text(&disk->path, sealed->path));
    TRY(replace_text(&disk->format, sealed->format));
    if (sealed->read_only)
        return NULL;

    char **path = &restore->overlays[restore->overlay_count];
    TRY(place_overlay(restore, sealed->path, &place));
    TRY(disk_image_next_overlay(place, path));
    struct err *err =
        disk_image_create_overlay(*path, sealed->path, sealed->format, sealed->virtual_bytes);
    if (err != NULL) {
        free(TAKE_PTR(*path)); /* not ours to remove */
        return err;
    }
    restore->overlay_count++;
    TRY(replace_text(&disk->format, "qcow2"));
    return replace_text(&disk->path, *path);
}

static struct err *make_overlays(struct restore *restore)
{
    for (size_t i = 0; i < restore->manifest->n_disks; i++)
        TRY(make_overlay(restore, i));
    return NULL;
}

static void remove_overlays(struct restore *restore)
{
    for (size_t i = 0; i < restore->overlay_count; i++)
        (void)unlink(restore->overlays[i]);
}

static struct err *start_machine(struct restore *restore)
{
    if (restore->is_client_given)
        return NULL;
    return machine_process_start(config_of(restore)->name, restore->settings.program,
                                 &restore->client, &restore->pid, &restore->log_path);
}

/* Closing the connection is what ends the process. */
static void end_machine(struct restore *restore)
{
    if (restore->pid == 0)
        return;
    control_client_close(TAKE_PTR(restore->client));
    machine_process_reap(restore->pid);
}

static struct err *configure(struct restore *restore)
{
    return control_configure(restore->client, restore->manifest->description, true, NULL, 0);
}

static struct err *load_state(struct restore *restore)
{
    return control_load_state(restore->client, restore->parts->state);
}

static struct err *give_memory(struct restore *restore)
{
    return control_memory_source(restore->client,
                                 manifest_part(restore->manifest, SNAPSHOT_PART_INDEX)->checksum,
                                 restore->parts->fds, restore->parts->fd_count);
}

static struct err *resume(struct restore *restore)
{
    if (restore->settings.is_paused)
        return control_pause(restore->client, false, &restore->first_run_ns);
    TRY(control_resume(restore->client));
    return control_wait_entered(restore->client, &restore->first_run_ns);
}

/* clang-format off */
static const struct phase_row phases[] = {
    {"read the manifest", read_manifest, NULL},
    {"check",             check,         NULL},
    {"make overlays",     make_overlays, remove_overlays},
    {"start the machine", start_machine, end_machine},
    {"configure",         configure,     NULL},
    {"give the memory",   give_memory,   NULL}, /* first, because loading state may touch it */
    {"load the state",    load_state,    NULL},
    {"resume",            resume,        NULL},
};
/* clang-format on */
static_assert(ARRAY_COUNT(phases) <= PHASES_MAX, "each phase has its timing");

static struct err *run_phase(struct restore *restore, size_t index)
{
    uint64_t start_ns = clock_monotonic_ns();

    test_hook(phases[index].name);
    struct err *err = cancel_check();
    if (err == NULL)
        err = phases[index].run(restore);
    restore->timings.rows[index].phase = phases[index].name;
    restore->timings.rows[index].us = (clock_monotonic_ns() - start_ns) / NS_PER_US;
    restore->timings.count = index + 1;
    return err;
}

static struct err *run_phases(struct restore *restore)
{
    for (size_t i = 0; i < ARRAY_COUNT(phases); i++) {
        struct err *err = run_phase(restore, i);
        if (err == NULL)
            continue;
        for (size_t done = i + 1; done-- > 0;)
            if (phases[done].undo != NULL)
                phases[done].undo(restore);
        return err_wrap(err, "restore '%s/%s', phase '%s'", restore->from->machine,
                        restore->from->id.text, phases[i].name);
    }
    return NULL;
}

static void release(struct restore *restore)
{
    if (!restore->is_client_given)
        control_client_close(restore->client);
    held_layers_release(restore->held);
    snapshot_parts_close(restore->parts);
    manifest_free(restore->manifest);
    for (size_t i = 0; i < restore->overlay_count; i++)
        free(restore->overlays[i]);
    free(restore->log_path);
}

static void fill_result(struct restore *restore, struct restore_result *out_result)
{
    *out_result = (struct restore_result){
        .manifest = TAKE_PTR(restore->manifest),
        .pid = restore->pid,
        .log_path = TAKE_PTR(restore->log_path),
        .timings = restore->timings,
        .total_us = (clock_monotonic_ns() - restore->start_ns) / NS_PER_US,
    };
    if (!restore->settings.is_paused && restore->first_run_ns > restore->start_ns)
        out_result->first_run_us = (restore->first_run_ns - restore->start_ns) / NS_PER_US;
}

static struct err *run(struct restore *restore, struct restore_result *out_result)
{
    struct err *err = run_phases(restore);

    if (err == NULL)
        fill_result(restore, out_result);
    release(restore);
    return err;
}

struct err *snapshot_restore(struct snapshot_store *store, const struct snapshot_name *name,
                             struct restore_settings settings, struct restore_result *out_result)
{
    struct restore restore = {
        .store = store, .from = name, .settings = settings, .start_ns = clock_monotonic_ns()};

    return run(&restore, out_result);
}

struct err *snapshot_restore_into(struct control_client *client, struct snapshot_store *store,
                                  const struct snapshot_name *name,
                                  struct restore_settings settings,
                                  struct restore_result *out_result)
{
    struct restore restore = {.store = store,
                              .from = name,
                              .settings = settings,
                              .start_ns = clock_monotonic_ns(),
                              .client = client,
                              .is_client_given = true};

    return run(&restore, out_result);
}

void restore_result_finish(struct restore_result *result)
{
    manifest_free(result->manifest);
    free(result->log_path);
    *result = (struct restore_result){0};
}
