/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_prune.c - see layer_prune.h.
 */
#include "snapshot/layer_prune.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/file_io.h"
#include "base/test_hook.h"
#include "snapshot/layer_needs.h"
#include "snapshot/layer_record.h"
#include "storage/image_graph.h"
#include "storage/image_lock.h"
#include "storage/layer_list.h"

#define WRITE_BITS (S_IWUSR | S_IWGRP | S_IWOTH)

struct prune {
    const struct layer_prune_request *request;
    bool is_removing;
    char *folder; /* owned */
    struct stat folder_status;
    Ferry__LayerRecord *record; /* owned; NULL: there is none */
    struct layer_needs needs;
    struct image_graph graph;
    struct stat *added; /* owned; the folders in the graph */
    size_t added_count;
    enum layer_verdict *verdicts; /* owned; for each node */
    unsigned newest;
    struct layer_prune_report report;
};

static struct err *find_folder(struct prune *prune)
{
    CLEANUP(cleanup_free) char *folder = NULL;

    TRY(folder_of(prune->request->image, &folder));
    prune->folder = realpath(folder, NULL);
    if (prune->folder == NULL || stat(prune->folder, &prune->folder_status) != 0)
        return err_errno(errno, "folder '%s'", folder);
    return NULL;
}

/* The record of a copy of the folder names snapshots that do not need the copy's images, although
 * whoever made it may. */
static struct err *read_record(struct prune *prune)
{
    TRY(layer_record_read(prune->request->image, &prune->record));
    if (prune->record == NULL && !prune->request->is_unknown_too)
        return err_new(ERR_STATE,
                       "nobody has written down which stores have snapshots of this disk: its "
                       "layers were sealed before that was done; if you know them all, name each "
                       "with --store and say --unrecorded");
    for (size_t i = 0; prune->record != NULL && i < prune->record->n_folders; i++) {
        struct stat status;
        if (stat(prune->record->folders[i], &status) == 0 &&
            file_is_same(&status, &prune->folder_status))
            continue;
        return err_new(ERR_STATE,
                       "its snapshots know the images in '%s', which is not this folder: it was "
                       "copied or moved; put it back, or make a link there",
                       prune->record->folders[i]);
    }
    return NULL;
}

static struct err *collect_needs(struct prune *prune)
{
    const struct layer_prune_request *request = prune->request;

    for (size_t i = 0; prune->record != NULL && i < prune->record->n_stores; i++)
        TRY(layer_needs_add_recorded(&prune->needs, prune->record->stores[i]));
    for (size_t i = 0; i < request->store_count; i++)
        TRY(layer_needs_add_store(&prune->needs, request->stores[i]));
    layer_needs_sort(&prune->needs);
    return NULL;
}

static struct err *add_folder(struct prune *prune, const char *path)
{
    struct stat status;

    if (stat(path, &status) != 0)
        return err_errno(errno,
                         "folder '%s' has images that stand on layers of this disk; mount it or "
                         "put it back, or, if it is gone for good, strike it out with --forget",
                         path);
    for (size_t i = 0; i < prune->added_count; i++)
        if (file_is_same(&prune->added[i], &status))
            return NULL;
    struct stat *added = reallocarray(prune->added, prune->added_count + 1, sizeof(*added));
    if (added == NULL)
        return err_new(ERR_NO_MEMORY, "list images");
    prune->added = added;
    added[prune->added_count++] = status;
    return image_graph_add_folder(&prune->graph, path);
}

static struct err *look_at_images(struct prune *prune)
{
    const struct layer_prune_request *request = prune->request;

    TRY(add_folder(prune, prune->folder));
    for (size_t i = 0; prune->record != NULL && i < prune->record->n_image_folders; i++)
        TRY(add_folder(prune, prune->record->image_folders[i]));
    for (size_t i = 0; i < request->image_folder_count; i++)
        TRY(add_folder(prune, request->image_folders[i]));
    return image_graph_connect(&prune->graph, prune->needs.raw.files, prune->needs.raw.count);
}

static enum overlay_file_kind kind_of(const struct prune *prune, const struct image_node *node,
                                      unsigned *out_number)
{
    size_t len = strlen(prune->folder);

    *out_number = 0;
    if (strncmp(node->path, prune->folder, len) != 0 || node->path + len + 1 != node->name)
        return OVERLAY_FILE_OTHER;
    return overlay_file_look(prune->request->image, node->name, out_number);
}

static bool is_sealed(const struct image_node *node)
{
    return (node->status.st_mode & WRITE_BITS) == 0;
}

static struct layer_facts facts_of(const struct prune *prune, size_t index)
{
    const struct image_node *node = &prune->graph.nodes[index];
    unsigned number, below_number;
    struct layer_facts facts = {
        .kind = kind_of(prune, node, &number),
        .head = node->is_raw ? IMAGE_HEAD_OTHER : node->kind,
        .newest = prune->newest,
        .has_other_names = node->is_link || node->status.st_nlink != 1,
        .is_sealed = is_sealed(node),
        .is_needed = layer_needs_has(&prune->needs, &node->status),
    };

    facts.number = number;
    facts.is_known = prune->request->is_unknown_too ||
                     (prune->record != NULL && layer_record_knows(prune->record, number));
    if (node->backing != IMAGE_GRAPH_NONE) {
        const struct image_node *below = &prune->graph.nodes[node->backing];
        enum overlay_file_kind kind = kind_of(prune, below, &below_number);
        facts.is_on_own = kind == OVERLAY_FILE_BASE || kind == OVERLAY_FILE_OVERLAY;
        /* A snapshot's is sealed whatever became of its mode. */
        facts.is_below_sealed = is_sealed(below) || layer_needs_has(&prune->needs, &below->status);
    }
    return facts;
}

static void find_newest(struct prune *prune)
{
    for (size_t i = 0; i < prune->graph.count; i++) {
        struct layer_facts facts = facts_of(prune, i);
        if (facts.kind == OVERLAY_FILE_OVERLAY && !layer_is_unused(&facts) &&
            facts.number > prune->newest)
            prune->newest = facts.number;
    }
}

static struct err *decide(struct prune *prune)
{
    prune->verdicts = calloc(prune->graph.count + 1, sizeof(prune->verdicts[0]));
    if (prune->verdicts == NULL)
        return err_new(ERR_NO_MEMORY, "list images");
    find_newest(prune);
    for (size_t i = 0; i < prune->graph.count; i++) {
        struct layer_facts facts = facts_of(prune, i);
        prune->verdicts[i] = layer_prune_decide(&facts);
        if (prune->verdicts[i] == LAYER_KEPT)
            image_graph_keep(&prune->graph, i);
    }
    for (size_t i = 0; i < prune->graph.count; i++)
        if (prune->verdicts[i] == LAYER_UNKNOWN && !prune->graph.nodes[i].is_kept)
            prune->report.unknown_count++;
    for (size_t i = 0; i < prune->graph.count; i++)
        if (prune->verdicts[i] == LAYER_UNKNOWN)
            image_graph_keep(&prune->graph, i);
    return NULL;
}

static struct err *is_still_free(const struct prune *prune, int fd, const struct image_node *node,
                                 enum layer_verdict verdict, bool *out_is_free)
{
    struct stat status;
    bool is_held = false;

    *out_is_free = false;
    if (prune->is_removing) {
        struct err *err = image_lock_take(fd, node->path, IMAGE_LOCK_WRITER);
        is_held = err != NULL && err_kind(err) == ERR_DENIED;
        if (err != NULL && !is_held)
            return err;
        err_free(err);
    } else {
        TRY(image_lock_is_held(fd, node->path, &is_held));
    }
    if (fstat(fd, &status) != 0)
        return err_errno(errno, "look at '%s'", node->path);
    if (is_held || !file_is_same(&status, &node->status))
        return NULL;
    if (verdict == LAYER_REMOVABLE)
        *out_is_free = (status.st_mode & WRITE_BITS) == 0;
    else if (verdict == LAYER_ABANDONED && node->kind == IMAGE_HEAD_QCOW)
        return layer_is_unwritten(node->path, out_is_free);
    else
        *out_is_free = true;
    return NULL;
}

static struct err *report_file(struct prune *prune, size_t index)
{
    const struct image_node *node = &prune->graph.nodes[index];
    struct layer_prune_report *report = &prune->report;
    struct layer_prune_file *files = reallocarray(report->files, report->count + 1, sizeof(*files));

    if (files == NULL)
        return err_new(ERR_NO_MEMORY, "list images");
    report->files = files;
    files[report->count] = (struct layer_prune_file){
        .path = strdup(node->path),
        .verdict = prune->verdicts[index],
        .bytes = (uint64_t)node->status.st_blocks * 512,
    };
    if (files[report->count].path == NULL)
        return err_new(ERR_NO_MEMORY, "list images");
    report->bytes += files[report->count++].bytes;
    return NULL;
}

/* With the lock held until the name is gone, so that nobody opens it to write meanwhile. */
static struct err *remove_file(struct prune *prune, size_t index)
{
    struct image_node *node = &prune->graph.nodes[index];
    bool is_free = false;
    CLEANUP(cleanup_fd) int fd = open(node->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);

    if (fd < 0)
        return errno == ENOENT ? NULL : err_errno(errno, "open '%s'", node->path);
    TRY(is_still_free(prune, fd, node, prune->verdicts[index], &is_free));
    if (!is_free) {
        prune->report.used_count++;
        return NULL;
    }
    TRY(report_file(prune, index));
    if (prune->is_removing) {
        test_hook("prune remove");
        if (unlink(node->path) != 0)
            return err_errno(errno, "remove '%s'", node->path);
    }
    if (node->backing != IMAGE_GRAPH_NONE)
        prune->graph.nodes[node->backing].children--;
    return NULL;
}

static bool is_wanted(const struct prune *prune, size_t index, enum layer_verdict verdict)
{
    const struct image_node *node = &prune->graph.nodes[index];
    const struct name_list *only = prune->request->only;

    if (prune->verdicts[index] != verdict || node->is_kept || node->children != 0)
        return false;
    for (size_t i = 0; only != NULL && i < only->count; i++)
        if (strcmp(only->names[i], node->name) == 0)
            return true;
    return only == NULL;
}

struct numbered {
    unsigned number;
    size_t index;
};

static int compare_numbers(const void *a, const void *b)
{
    const struct numbered *one = a, *other = b;

    return one->number > other->number ? -1 : one->number < other->number;
}

/* An overlay's number is above that of what it stands on, so this is from the top down. One on
 * which something still stands, for whatever reason, stays. */
static struct err *remove_of_kind(struct prune *prune, const struct numbered *order,
                                  enum layer_verdict verdict)
{
    for (size_t i = 0; i < prune->graph.count; i++)
        if (is_wanted(prune, order[i].index, verdict))
            TRY(remove_file(prune, order[i].index));
    return NULL;
}

static struct err *remove_all(struct prune *prune)
{
    CLEANUP(cleanup_free) struct numbered *order = calloc(prune->graph.count + 1, sizeof(*order));

    if (order == NULL)
        return err_new(ERR_NO_MEMORY, "list images");
    for (size_t i = 0; i < prune->graph.count; i++) {
        (void)kind_of(prune, &prune->graph.nodes[i], &order[i].number);
        order[i].index = i;
    }
    qsort(order, prune->graph.count, sizeof(*order), compare_numbers);
    TRY(remove_of_kind(prune, order, LAYER_DRAFT));
    TRY(remove_of_kind(prune, order, LAYER_ABANDONED));
    return remove_of_kind(prune, order, LAYER_REMOVABLE);
}

/* Stores and folders that the caller named are known from here on. A store without an id that may
 * not be written to can not be told from another one, and has to be named each time. */
static struct err *note_named(struct prune *prune, int lock_fd)
{
    const struct layer_prune_request *request = prune->request;

    for (size_t i = 0; i < request->store_count; i++) {
        CLEANUP(cleanup_free) char *path = realpath(request->stores[i], NULL);
        struct layer_need need = {.store_path = path};
        if (path == NULL)
            return err_errno(errno, "find store '%s'", request->stores[i]);
        struct err *err = store_id_make(path, &need.store_id);
        if (err != NULL && err_errnum(err) != EACCES && err_errnum(err) != EROFS)
            return err;
        if (err == NULL)
            TRY(layer_record_note(request->image, lock_fd, &need));
        err_free(err);
    }
    for (size_t i = 0; i < request->image_folder_count; i++) {
        CLEANUP(cleanup_free) char *path = realpath(request->image_folders[i], NULL);
        struct layer_need need = {.image_folder = path};
        if (path == NULL)
            return err_errno(errno, "folder '%s'", request->image_folders[i]);
        TRY(layer_record_note(request->image, lock_fd, &need));
    }
    return NULL;
}

static struct err *run(struct prune *prune, int lock_fd)
{
    TRY(find_folder(prune));
    TRY(read_record(prune));
    TRY(collect_needs(prune));
    TRY(look_at_images(prune));
    TRY(decide(prune));
    if (!prune->is_removing)
        return remove_all(prune);
    TRY(note_named(prune, lock_fd));
    struct err *err = remove_all(prune);
    if (prune->report.count == 0)
        return err;
    struct err *sync_err = folder_sync(prune->folder);
    if (err != NULL)
        err_free(sync_err);
    return err != NULL ? err : sync_err;
}

static void release(struct prune *prune)
{
    layer_record_free(prune->record);
    layer_needs_finish(&prune->needs);
    image_graph_finish(&prune->graph);
    free(prune->added);
    free(prune->verdicts);
    free(prune->folder);
}

struct err *layer_prune(const struct layer_prune_request *request, enum layer_prune_mode mode,
                        struct layer_prune_report *out_report)
{
    struct prune prune = {.request = request, .is_removing = mode != LAYER_PRUNE_LOOK};
    CLEANUP(cleanup_fd) int lock_fd = -1;
    struct err *err = NULL;

    if (prune.is_removing)
        err = layer_lock_take(
            request->image, mode == LAYER_PRUNE_REMOVE ? LAYER_LOCK_REMOVE : LAYER_LOCK_TRY_REMOVE,
            &lock_fd);
    if (err == NULL)
        err = run(&prune, lock_fd);
    release(&prune);
    if (err != NULL) {
        layer_prune_report_finish(&prune.report);
        return err_wrap(err, "find what is not needed of the disk of '%s'", request->image);
    }
    *out_report = prune.report;
    return NULL;
}

void layer_prune_report_finish(struct layer_prune_report *report)
{
    for (size_t i = 0; i < report->count; i++)
        free(report->files[i].path);
    free(report->files);
    *report = (struct layer_prune_report){0};
}
