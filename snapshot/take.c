/* SPDX-License-Identifier: Apache-2.0 */
/*
 * take.c - see take.h.
 *
 * The guest runs in all phases but those from "pause" to "resume", unless it was paused before.
 * Nothing is written to a file in between: what has to be copied there goes to RAM. The snapshot
 * exists from "publish" on. A phase that fails, or a worker that dies, leaves the machine running
 * and every earlier snapshot as it was: the machine undoes what a connection held when it closes,
 * and a draft without an owner is garbage.
 *
 * The order within the pause matters: saving a device may write guest memory, so the last harvest
 * comes after it; the cut is marked when that harvest is taken, so that the next snapshot starts
 * from exactly here; disks switch last, as the only step that can not be taken back.
 */
#include "snapshot/take.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/assert.h"
#include "base/cancel.h"
#include "base/checked_math.h"
#include "base/clock.h"
#include "base/file_io.h"
#include "base/limits.h"
#include "base/test_hook.h"
#include "control/control_client.h"
#include "control/lent_memory.h"
#include "proto/page_index.h"
#include "snapshot/catalog.h"
#include "snapshot/held_layers.h"
#include "snapshot/memory_capture.h"
#include "snapshot/memory_writer.h"
#include "snapshot/snapshot_store.h"
#include "snapshot/take_manifest.h"
#include "snapshot/take_policy.h"

#define ROUNDS_MAX 30u

struct take {
    struct control_client *client;
    struct snapshot_store *store;
    struct take_settings settings;
    struct snapshot_id id;

    Ferry__ControlReply *description;  /* owned */
    Ferry__SnapshotManifest *parent;   /* owned; NULL: a full snapshot */
    struct lent_memory *memory;        /* owned */
    struct held_layers *held;          /* owned */
    struct snapshot_draft *draft;      /* owned */
    struct memory_writer *writer;      /* owned */
    struct memory_capture *capture;    /* owned */
    Ferry__ControlReply *state;        /* owned */
    Ferry__ControlReply *frozen_disks; /* owned */
    bool is_paused;                    /* by us */
    bool was_paused;                   /* before, and stays so */

    uint64_t start_ns;
    uint64_t paused_ns;
    uint64_t paused_realtime_ns;
    struct take_facts facts;
    Ferry__SnapshotManifest *manifest; /* owned: as published */
    bool is_tracked;
    struct phase_timings timings;
};

struct phase_row {
    const char *name;
    struct err *(*run)(struct take *take);
    void (*undo)(struct take *take); /* NULL: nothing; may meet a half-done phase */
};

static const Ferry__MachineConfig *config_of(const struct take *take)
{
    return take->description->description->config;
}

/* By the time, and after every one that there is, also when the clock was put back: names sort by
 * age, and the last one is what is restored when nobody says which. */
static struct err *name_snapshot(struct take *take)
{
    uint64_t now_ns = clock_realtime_ns();
    struct snapshot_id newest;

    struct err *err = catalog_newest(take->store, config_of(take)->name, &newest);
    if (err == NULL)
        now_ns = MAX(now_ns, snapshot_id_time_ns(&newest) + NS_PER_US);
    err_free(err);
    return snapshot_id_make(now_ns, &take->id);
}

static struct err *describe(struct take *take)
{
    TRY(control_describe(take->client, &take->description));
    if (take->description->description == NULL || take->description->description->config == NULL)
        return err_new(ERR_INVALID, "the machine does not describe itself");
    return name_snapshot(take);
}

/* The newest snapshot, if another one can build on it. What can not be read can not be a parent,
 * which is no reason not to save. */
static void choose_parent(struct take *take)
{
    struct snapshot_id newest;
    CLEANUP(cleanup_manifest) Ferry__SnapshotManifest *parent = NULL;

    struct err *err = catalog_newest(take->store, config_of(take)->name, &newest);
    if (err == NULL)
        err = catalog_load(take->store, config_of(take)->name, newest.text, &parent);
    if (err != NULL || parent->n_page_files == SNAPSHOT_CHAIN_MAX)
        err_free(err);
    else
        take->parent = TAKE_PTR(parent);
}

static struct err *lend_memory(struct take *take)
{
    if (!take->settings.is_full)
        choose_parent(take);
    TRY(lent_memory_borrow(take->client, FERRY__LEND_PURPOSE__LEND_SNAPSHOT,
                           take->parent == NULL ? "" : take->parent->id, &take->memory));
    if (!lent_memory_is_incremental(take->memory)) {
        manifest_free(TAKE_PTR(take->parent));
        return NULL;
    }
    if (take->parent == NULL ||
        manifest_page_count(take->parent) != lent_memory_page_count(take->memory))
        return err_new(ERR_INVALID,
                       "the machine tells changes since a snapshot that is not its own");
    return NULL;
}

/* From here until the snapshot is there nobody removes layers of these disks. */
static struct err *hold_layers(struct take *take)
{
    const Ferry__MachineConfig *config = config_of(take);
    struct held_disk disks[MACHINE_DISKS_MAX];

    if (config->n_disks > MACHINE_DISKS_MAX)
        return err_new(ERR_INVALID, "the machine names %zu disks; the most are %u", config->n_disks,
                       MACHINE_DISKS_MAX);
    for (size_t i = 0; i < config->n_disks; i++)
        disks[i] = (struct held_disk){
            .path = config->disks[i]->path,
            .format = config->disks[i]->format,
            .is_read_only = config->disks[i]->read_only,
            .is_sealing = !config->disks[i]->read_only,
        };
    return held_layers_take(
        (struct held_purpose){.store = take->store,
                              .machine = config->name,
                              .is_saving = true,
                              .folders = (const char *const *)config->image_folders,
                              .folder_count = config->n_image_folders},
        disks, config->n_disks, &take->held);
}

static void undo_hold(struct take *take)
{
    held_layers_release(TAKE_PTR(take->held));
}

static struct err *prepare_disks(struct take *take)
{
    return control_prepare_disks(take->client);
}

static struct err *open_parent_index(struct take *take, struct page_index **out_index)
{
    const Ferry__SnapshotPart *part = manifest_part(take->parent, SNAPSHOT_PART_INDEX);
    CLEANUP(cleanup_fd) int fd = -1;

    TRY(store_open_part(take->store, take->parent->machine, take->parent->id, SNAPSHOT_PART_INDEX,
                        &fd));
    struct err *err = page_index_open(fd, take->parent->id, part->checksum, out_index);
    return err == NULL ? NULL : err_wrap(err, "the parent is damaged; save with --full");
}

static struct err *begin(struct take *take)
{
    struct page_index *parent_index = NULL;
    uint64_t page_count = lent_memory_page_count(take->memory);
    uint32_t file_number = take->parent == NULL ? 0 : (uint32_t)take->parent->n_page_files;
    int fd = -1;

    TRY(store_begin(take->store, config_of(take)->name, take->id.text, &take->draft));
    TRY(draft_create_part(take->draft, SNAPSHOT_PART_MEMORY, &fd));
    struct err *err = take->parent == NULL ? NULL : open_parent_index(take, &parent_index);
    if (err == NULL)
        err =
            memory_writer_create(TAKE_FD(fd), page_count, file_number, parent_index, &take->writer);
    page_index_close(parent_index);
    cleanup_fd(&fd);
    TRY(err);
    return memory_capture_create(take->client, take->memory, take->writer, &take->capture);
}

static struct err *copy_round(struct take *take, enum take_verdict verdict, uint64_t dirty_pages)
{
    if (verdict == TAKE_WRITE_ROUND)
        return memory_capture_write_round(take->capture);
    memory_capture_prepare(take->capture, dirty_pages);
    return memory_capture_stage_round(take->capture);
}

static struct err *copy_memory(struct take *take)
{
    const struct take_limits limits = {
        .pause_us_wanted = take->settings.pause_us_wanted,
        .pause_us_max = take->settings.pause_us_max,
        .staged_pages_max = take->settings.staged_bytes_max / PAGE_BYTES,
        .rounds_max = ROUNDS_MAX,
    };

    TRY(memory_capture_write_round(take->capture));
    for (take->facts.rounds = 1;; take->facts.rounds++) {
        struct take_progress progress = {
            .staged_pages = memory_capture_staged_pages(take->capture),
            .rounds_done = take->facts.rounds - 1,
            .copy_ns_per_page = memory_capture_copy_ns_per_page(take->capture),
        };
        TRY(memory_capture_harvest(take->capture, &progress.dirty_pages));
        enum take_verdict verdict = take_decide(progress, limits);
        if (verdict == TAKE_CUT) {
            /* Some more will change until the machine stands still. */
            memory_capture_prepare(take->capture, progress.dirty_pages * 2 + 512);
            return NULL;
        }
        if (verdict == TAKE_GIVE_UP)
            return err_new(ERR_STATE,
                           "the guest changes memory faster than it can be copied: a pause of %llu "
                           "ms would be needed, %llu ms are allowed; allow more with --pause-max",
                           (unsigned long long)(take_pause_us(progress) / 1000),
                           (unsigned long long)(limits.pause_us_max / 1000));
        TRY(copy_round(take, verdict, progress.dirty_pages));
    }
}

static struct err *pause_machine(struct take *take)
{
    TRY(control_hold(take->client, &take->paused_ns, &take->was_paused));
    take->is_paused = true;
    take->paused_realtime_ns = clock_realtime_ns();
    return NULL;
}

static struct err *save_state(struct take *take)
{
    return control_save_state(take->client, &take->state);
}

static struct err *copy_rest(struct take *take)
{
    TRY(memory_capture_harvest(take->capture, &take->facts.residual_pages));
    return memory_capture_stage_round(take->capture);
}

static struct err *mark_cut(struct take *take)
{
    return control_mark_cut(take->client);
}

static struct err *freeze_disks(struct take *take)
{
    return control_freeze_disks(take->client, &take->frozen_disks);
}

static struct err *resume_machine(struct take *take)
{
    uint64_t entered_ns = 0;

    TRY(control_resume(take->client));
    take->is_paused = false;
    if (take->was_paused)
        return NULL; /* no guest waited for us */
    /* What has been taken is whole, whatever becomes of the machine now. */
    err_free(control_wait_entered(take->client, &entered_ns));
    if (entered_ns == 0)
        entered_ns = clock_monotonic_ns();
    take->facts.pause_us = (entered_ns - take->paused_ns) / NS_PER_US;
    return NULL;
}

static struct err *write_index(struct take *take)
{
    CLEANUP(cleanup_fd) int fd = -1;

    TRY(draft_create_part(take->draft, SNAPSHOT_PART_INDEX, &fd));
    TRY(memory_writer_write_index(take->writer, fd, &take->facts.index_checksum));
    return file_size(fd, "index", &take->facts.index_bytes);
}

static struct err *write_state(struct take *take)
{
    const Ferry__MachineState *state = take->state->state;
    CLEANUP(cleanup_fd) int fd = -1;

    size_t len = ferry__machine_state__get_packed_size(state);
    CLEANUP(cleanup_free) uint8_t *data = malloc(len + 1);
    if (data == NULL)
        return err_new(ERR_NO_MEMORY, "pack the machine's state");
    (void)ferry__machine_state__pack(state, data);
    take->facts.state_bytes = len;
    take->facts.state_checksum = XXH3_64bits(data, len);
    TRY(draft_create_part(take->draft, SNAPSHOT_PART_STATE, &fd));
    TRY(file_write_at(fd, "state", data, len, 0));
    return file_sync(fd, "state");
}

static struct err *write_parts(struct take *take)
{
    TRY(memory_capture_flush(take->capture));
    TRY(memory_writer_finish(take->writer));
    TRY(write_index(take));
    return write_state(take);
}

static struct err *publish(struct take *take)
{
    const char *parent = take->parent == NULL ? NULL : take->parent->id;
    CLEANUP(cleanup_free) void *data = NULL;
    size_t len = 0;

    take->facts.id = take->id.text;
    take->facts.paused_ns = take->paused_ns;
    take->facts.paused_realtime_ns = take->paused_realtime_ns;
    take->facts.pages_written = memory_writer_page_count(take->writer);
    take->facts.pages_zero = memory_writer_zero_count(take->writer);
    TRY(take_manifest_pack(&take->facts, take->description->description, take->parent,
                           take->frozen_disks->disks, &data, &len));
    TRY(manifest_parse(take->id.text, data, len, &take->manifest));
    return draft_publish(take->draft, data, len, parent);
}

/* The snapshot exists: if this fails, the next one is merely full. */
static struct err *keep_tracking(struct take *take)
{
    struct err *err = control_keep_tracking(take->client, take->id.text);

    take->is_tracked = err == NULL;
    err_free(err);
    return NULL;
}

/* At the end, or as the undo of lending: the machine stops tracking for us. If the connection is
 * gone, it has done so by itself. */
static struct err *return_memory(struct take *take)
{
    memory_capture_destroy(TAKE_PTR(take->capture));
    lent_memory_return(TAKE_PTR(take->memory));
    err_free(control_return_memory(take->client));
    return NULL;
}

static void undo_lend(struct take *take)
{
    if (take->memory != NULL)
        err_free(return_memory(take));
}

static void undo_begin(struct take *take)
{
    draft_close(TAKE_PTR(take->draft));
}

static void undo_pause(struct take *take)
{
    if (take->is_paused)
        err_free(control_resume(take->client));
}

/* clang-format off */
/* The guest stands still in the phases that are indented. */
static const struct phase_row phases[] = {
    {"describe",          describe,       NULL},
    {"lend memory",       lend_memory,    undo_lend},
    {"hold layers",       hold_layers,    undo_hold},
    {"prepare disks",     prepare_disks,  NULL},
    {"begin",             begin,          undo_begin},
    {"copy memory",       copy_memory,    NULL},
    {  "pause",           pause_machine,  undo_pause},
    {  "save state",      save_state,     NULL},
    {  "copy the rest",   copy_rest,      NULL},
    {  "mark the cut",    mark_cut,       NULL},
    {  "freeze disks",    freeze_disks,   NULL},
    {  "resume",          resume_machine, NULL},
    {"write",             write_parts,    NULL},
    {"publish",           publish,        NULL},
    {"keep tracking",     keep_tracking,  NULL},
    {"return memory",     return_memory,  NULL},
};
/* clang-format on */
static_assert(ARRAY_COUNT(phases) <= PHASES_MAX, "each phase has its timing");

static struct err *run_phases(struct take *take)
{
    for (size_t i = 0; i < ARRAY_COUNT(phases); i++) {
        uint64_t start_ns = clock_monotonic_ns();
        test_hook(phases[i].name);
        struct err *err = take->manifest == NULL ? cancel_check() : NULL; /* else it exists */
        if (err == NULL)
            err = phases[i].run(take);
        take->timings.rows[i].phase = phases[i].name;
        take->timings.rows[i].us = (clock_monotonic_ns() - start_ns) / NS_PER_US;
        take->timings.count = i + 1;
        if (err == NULL)
            continue;
        for (size_t done = i + 1; done-- > 0;)
            if (phases[done].undo != NULL)
                phases[done].undo(take);
        return err_wrap(err, "save, phase '%s'", phases[i].name);
    }
    return NULL;
}

static void free_reply(Ferry__ControlReply *reply)
{
    if (reply != NULL)
        ferry__control_reply__free_unpacked(reply, NULL);
}

static void release(struct take *take)
{
    memory_capture_destroy(take->capture);
    lent_memory_return(take->memory);
    memory_writer_destroy(take->writer);
    draft_close(take->draft);
    held_layers_release(take->held);
    manifest_free(take->parent);
    manifest_free(take->manifest);
    free_reply(take->description);
    free_reply(take->state);
    free_reply(take->frozen_disks);
}

struct err *snapshot_take(struct control_client *client, struct snapshot_store *store,
                          struct take_settings settings, struct take_result *out_result)
{
    struct take take = {
        .client = client,
        .store = store,
        .settings = settings,
        .start_ns = clock_monotonic_ns(),
    };

    struct err *err = run_phases(&take);
    if (err == NULL)
        *out_result = (struct take_result){
            .manifest = TAKE_PTR(take.manifest),
            .disks = TAKE_PTR(take.frozen_disks),
            .timings = take.timings,
            .total_us = (clock_monotonic_ns() - take.start_ns) / NS_PER_US,
            .is_tracked = take.is_tracked,
        };
    release(&take);
    return err;
}

void take_result_finish(struct take_result *result)
{
    manifest_free(result->manifest);
    free_reply(result->disks);
    *result = (struct take_result){0};
}
