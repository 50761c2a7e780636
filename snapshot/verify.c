/* SPDX-License-Identifier: Apache-2.0 */
/*
 * verify.c - see verify.h.
 */
#include "snapshot/verify.h"

#include <inttypes.h>
#include <stdlib.h>
#include <xxhash.h>

#include "base/cancel.h"
#include "base/checked_math.h"
#include "base/file_io.h"
#include "base/limits.h"
#include "proto/page_index.h"
#include "snapshot/catalog.h"
#include "snapshot/sealed_disk.h"
#include "snapshot/snapshot_parts.h"

#define PROBLEMS_TOLD_MAX 20u
#define RUN_PAGES_MAX     ((uint64_t)256)

/* Frees the error; ERR_NO_MEMORY is not the snapshot's fault and goes up. */
static struct err *note(struct verify_report *report, struct err *problem)
{
    struct err *err = NULL;

    if (problem == NULL || err_kind(problem) == ERR_NO_MEMORY)
        return problem;
    if (report->problem_count++ < PROBLEMS_TOLD_MAX)
        err = name_list_add(&report->problems, err_message(problem));
    err_free(problem);
    return err;
}

static struct err *verify_page(const char *file, struct page_index *index, uint64_t page,
                               const uint8_t *content)
{
    struct page_location location;

    TRY(page_index_find(index, page, &location));
    if (XXH3_64bits(content, PAGE_BYTES) == location.checksum)
        return NULL;
    return err_new(ERR_INVALID,
                   "page %" PRIu64 " is damaged: at %" PRIu64 " of part 'memory' of snapshot '%s'",
                   page, location.file_page * PAGE_BYTES, file);
}

/* Pages that follow one another in one file; an error is of all of them. */
static struct err *verify_run(const Ferry__SnapshotManifest *manifest, struct snapshot_parts *parts,
                              uint64_t first, struct page_location location, uint64_t count,
                              struct verify_report *report)
{
    const char *file = manifest->page_files[location.file]->snapshot;
    CLEANUP(cleanup_free) uint8_t *content = malloc(count * PAGE_BYTES);

    if (content == NULL)
        return err_new(ERR_NO_MEMORY, "read a snapshot");
    report->pages_read += count;
    TRY(file_read_at(parts->fds[location.file + 1], file, content, count * PAGE_BYTES,
                     location.file_page * PAGE_BYTES));
    for (uint64_t i = 0; i < count; i++)
        TRY(note(report, verify_page(file, parts->index, first + i, content + i * PAGE_BYTES)));
    return NULL;
}

/* A damaged chunk of the index is one problem, not one for each of its pages. */
static struct err *verify_chunk(const Ferry__SnapshotManifest *manifest,
                                struct snapshot_parts *parts, uint64_t first, uint64_t count,
                                struct verify_report *report)
{
    for (uint64_t at = 0; at < count;) {
        struct page_location location;
        uint64_t run = 0;
        TRY(page_index_find_run(parts->index, first + at, MIN(count - at, RUN_PAGES_MAX), &location,
                                &run));
        if (location.is_zero)
            report->pages_zero += run;
        else
            TRY(note(report, verify_run(manifest, parts, first + at, location, run, report)));
        at += run;
    }
    return NULL;
}

static struct err *verify_pages(const Ferry__SnapshotManifest *manifest,
                                struct snapshot_parts *parts, struct verify_report *report)
{
    uint64_t page_count = manifest_page_count(manifest);

    for (uint64_t page = 0; page < page_count; page += PAGE_INDEX_CHUNK_ENTRIES) {
        uint64_t count = MIN((uint64_t)PAGE_INDEX_CHUNK_ENTRIES, page_count - page);
        TRY(cancel_check());
        TRY(note(report, verify_chunk(manifest, parts, page, count, report)));
    }
    return NULL;
}

static struct err *verify_disks(const Ferry__SnapshotManifest *manifest,
                                struct sealed_disk_folders more, struct verify_report *report)
{
    const Ferry__MachineConfig *config = manifest->description->config;
    size_t count = config->n_image_folders + more.count;
    CLEANUP(cleanup_free) const char **paths = calloc(count + 1, sizeof(*paths));

    if (paths == NULL)
        return err_new(ERR_NO_MEMORY, "check disks");
    for (size_t i = 0; i < count; i++)
        paths[i] = i < more.count ? more.paths[i] : config->image_folders[i - more.count];
    for (size_t i = 0; i < manifest->n_disks; i++)
        TRY(note(report, sealed_disk_check(manifest->disks[i],
                                           (struct sealed_disk_folders){paths, count})));
    return NULL;
}

struct err *snapshot_verify(struct snapshot_store *store, const char *machine, const char *id,
                            struct sealed_disk_folders more, struct verify_report *out_report)
{
    CLEANUP(cleanup_manifest) Ferry__SnapshotManifest *manifest = NULL;
    CLEANUP(cleanup_snapshot_parts) struct snapshot_parts *parts = NULL;

    *out_report = (struct verify_report){0};
    struct err *err = catalog_load(store, machine, id, &manifest);
    if (err != NULL)
        return err_kind(err) == ERR_NOT_FOUND ? err : note(out_report, err);
    TRY(verify_disks(manifest, more, out_report));
    err = snapshot_parts_open(store, manifest, &parts);
    if (err != NULL)
        return note(out_report, err);
    return verify_pages(manifest, parts, out_report);
}

void verify_report_finish(struct verify_report *report)
{
    name_list_finish(&report->problems);
}

struct err *verify_report_error(const struct verify_report *report)
{
    if (verify_report_is_good(report))
        return NULL;
    return err_new(ERR_INVALID, "%" PRIu64 " problems; the first: %s", report->problem_count,
                   report->problems.count == 0 ? "unknown" : report->problems.names[0]);
}
