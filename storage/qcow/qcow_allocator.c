/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_allocator.c - see qcow_allocator.h.
 * Tested by: qcow_flush_test.c and qcow_power_cut_test.c
 */
#include "storage/qcow/qcow_allocator.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "base/limits.h"
#include "storage/host_file.h"
#include "storage/qcow/qcow_guard.h"
#include "storage/qcow/qcow_header.h"
#include "storage/qcow/qcow_refcounts.h"

/* qcow2, "Standard Cluster Descriptor": offsets have bits 9 to 55. */
#define HOST_OFFSET_MAX ((uint64_t)1 << 55)

#define LIST_CAPACITY_MIN ((size_t)64)
#define HOLES_MAX         ((size_t)65536)

/* A run of clusters whose counts are raised at once: what a power cut may leak. */
#define RESERVE_BYTES_MIN    (1 * MIB)
#define RESERVE_BYTES_MAX    (64 * MIB)
#define RESERVE_CLUSTERS_MAX ((uint64_t)16384)

/* How many clusters of the file are looked at for holes each time. */
#define SCAN_CLUSTERS 65536u

struct err *qcow_allocator_init(struct qcow_allocator *allocator, struct host_file *file,
                                struct qcow_refcounts *refcounts, struct qcow_guard *guard,
                                const struct qcow_header *header)
{
    uint64_t file_bytes;
    uint64_t cluster_bytes = (uint64_t)1 << header->cluster_bits;

    TRY(host_file_size(file, &file_bytes));
    uint64_t end = divide_up(file_bytes, cluster_bytes);
    uint64_t max = MIN(RESERVE_BYTES_MAX, header->virtual_bytes / 8) >> header->cluster_bits;
    max = MIN(MAX(max, (uint64_t)1), RESERVE_CLUSTERS_MAX);
    *allocator = (struct qcow_allocator){
        .file = file,
        .refcounts = refcounts,
        .guard = guard,
        .cluster_bits = header->cluster_bits,
        .fresh_from = end,
        .tail = end,
        .reserve_count = MIN(MAX(RESERVE_BYTES_MIN >> header->cluster_bits, (uint64_t)1), max),
        .reserve_max = max,
        /* Where a cluster is filled in parts, what is never written would take space for good. One
         * with a count of one bit can hold no more than one packed one. */
        .may_preallocate = !qcow_header_has_extended_l2(header) && header->refcount_order > 0,
        .scan_end = end,
    };
    return NULL;
}

void qcow_allocator_finish(struct qcow_allocator *allocator)
{
    free(allocator->holes.runs);
    free(allocator->dropped.clusters);
    free(allocator->releasing.clusters);
}

static struct err *uncounted_table(const struct qcow_allocator *allocator)
{
    return err_new(ERR_INVALID,
                   "image '%s' does not count its own tables; repair a copy of it with 'vm-disk "
                   "check -r all'",
                   allocator->file->path);
}

/* Makes a refcount block, and perhaps a larger table, in the first cluster without a count. */
static struct err *cover(struct qcow_allocator *allocator, uint64_t cluster)
{
    struct qcow_refcounts *refcounts = allocator->refcounts;
    uint64_t table = refcounts->table_offset >> allocator->cluster_bits, used;
    uint64_t table_count = refcounts->table_entries * 8 >> allocator->cluster_bits;

    /* A larger table lies where no count is yet, so no table may be there either. */
    bool is_growing = cluster >> refcounts->per_block_bits >= refcounts->table_entries;
    if (qcow_guard_kind(allocator->guard, cluster) != QCOW_TABLE_NONE ||
        (is_growing && qcow_guard_end(allocator->guard) > cluster)) {
        allocator->has_met_table = true;
        return uncounted_table(allocator);
    }
    TRY(qcow_refcounts_cover(refcounts, cluster, &used));
    if (refcounts->table_offset >> allocator->cluster_bits != table)
        qcow_guard_remove(allocator->guard, table, table_count);
    allocator->tail = cluster + used;
    allocator->fresh_from = MAX(allocator->fresh_from, allocator->tail);
    return qcow_guard_add(allocator->guard, QCOW_TABLE_REFCOUNTS, cluster, used);
}

/* Moves `tail` to the next free cluster, making refcount blocks on the way. */
static struct err *find_tail(struct qcow_allocator *allocator)
{
    for (;;) {
        uint64_t cluster = allocator->tail, count = 1;
        if (cluster >= HOST_OFFSET_MAX >> allocator->cluster_bits)
            return err_new(ERR_IO, "image '%s' is as large as the format allows",
                           allocator->file->path);
        if (!qcow_refcounts_covers(allocator->refcounts, cluster)) {
            TRY(cover(allocator, cluster));
            continue;
        }
        TRY(qcow_refcounts_get(allocator->refcounts, cluster, &count));
        if (count == 0)
            break;
        allocator->tail++;
    }
    return NULL;
}

static bool is_free(struct qcow_allocator *allocator, uint64_t cluster)
{
    uint64_t count = 1;

    if (!qcow_refcounts_covers(allocator->refcounts, cluster))
        return false;
    struct err *err = qcow_refcounts_get(allocator->refcounts, cluster, &count);
    err_free(err); /* a shorter run will do */
    if (err != NULL || count != 0)
        return false;
    if (qcow_guard_kind(allocator->guard, cluster) != QCOW_TABLE_NONE)
        allocator->has_met_table = true;
    return !allocator->has_met_table;
}

/* Counts up to `wanted` adjacent free clusters once; the first is free. */
static struct err *count_run(struct qcow_allocator *allocator, uint64_t first, uint64_t wanted,
                             struct qcow_run *out_run)
{
    struct qcow_run run = {.first = first};

    while (run.count < wanted && is_free(allocator, first + run.count)) {
        struct err *err = qcow_refcounts_set(allocator->refcounts, first + run.count, 1);
        if (err != NULL && run.count == 0)
            return err;
        err_free(err); /* a shorter run will do */
        if (err != NULL)
            break;
        run.count++;
    }
    *out_run = run;
    return NULL;
}

/* Forgets the hole when there is no memory: it is found again when the image is opened again. */
static void add_hole(struct qcow_run_list *holes, uint64_t first, uint64_t count)
{
    if (holes->count == holes->capacity) {
        size_t capacity = MAX(holes->capacity * 2, LIST_CAPACITY_MIN);
        struct qcow_run *runs =
            capacity > HOLES_MAX ? NULL : realloc(holes->runs, capacity * sizeof(*holes->runs));
        if (runs == NULL)
            return;
        holes->runs = runs;
        holes->capacity = capacity;
    }
    holes->runs[holes->count++] = (struct qcow_run){.first = first, .count = count};
}

/* Looks at some more of the clusters that were there when the image was opened. */
static void scan(struct qcow_allocator *allocator)
{
    uint64_t end = MIN(allocator->scanned + SCAN_CLUSTERS, allocator->scan_end);

    for (uint64_t at = allocator->scanned, run; at < end; at += run + 1) {
        for (run = 0; at + run < end && is_free(allocator, at + run);)
            run++;
        if (run > 0)
            add_hole(&allocator->holes, at, run);
    }
    allocator->scanned = end;
}

/* Brings what is reserved into the file: a host file system lets writes within the length of a file
 * go side by side, and those that make it longer one by one. It takes no space. */
static void lengthen(const struct qcow_allocator *allocator)
{
    uint64_t bytes, wanted = allocator->tail << allocator->cluster_bits;

    struct err *err = host_file_size(allocator->file, &bytes);
    if (err == NULL && bytes < wanted)
        err = host_file_truncate(allocator->file, wanted);
    err_free(err); /* the write will say so, if it must */
}

static struct err *reserve(struct qcow_allocator *allocator, uint64_t wanted)
{
    uint64_t count = MIN(MAX(wanted, allocator->reserve_count), allocator->reserve_max);

    TRY(find_tail(allocator));
    TRY(count_run(allocator, allocator->tail, count, &allocator->reserved));
    allocator->tail += allocator->reserved.count;
    allocator->reserve_count = MIN(count * 2, allocator->reserve_max);
    lengthen(allocator);
    if (allocator->may_preallocate && allocator->reserved.count > 0) {
        /* The host may say no: then the write will say so, if it must. */
        struct err *err = host_file_allocate(allocator->file,
                                             allocator->reserved.first << allocator->cluster_bits,
                                             allocator->reserved.count << allocator->cluster_bits);
        allocator->may_preallocate = err == NULL;
        err_free(err);
    }
    scan(allocator);
    return NULL;
}

/* False: no hole is left. */
static bool take_hole(struct qcow_allocator *allocator, uint64_t wanted, struct qcow_run *out_run)
{
    struct qcow_run_list *holes = &allocator->holes;

    while (holes->count > 0) {
        struct qcow_run *hole = &holes->runs[holes->count - 1];
        struct qcow_run run = {.count = 0};
        struct err *err = count_run(allocator, hole->first, MIN(wanted, hole->count), &run);
        err_free(err); /* the end of the file will do */
        uint64_t passed = MAX(run.count, (uint64_t)1);
        hole->first += passed;
        hole->count -= passed;
        if (hole->count == 0)
            holes->count--;
        if (run.count > 0) {
            *out_run = run;
            return true;
        }
    }
    return false;
}

struct err *qcow_allocator_take(struct qcow_allocator *allocator, uint64_t wanted,
                                struct qcow_run *out_run)
{
    struct qcow_run *reserved = &allocator->reserved;

    bool is_hole = take_hole(allocator, wanted, out_run);
    if (!is_hole && !allocator->has_met_table && reserved->count == 0)
        TRY(reserve(allocator, wanted));
    if (allocator->has_met_table)
        return uncounted_table(allocator);
    if (is_hole)
        return NULL;

    struct qcow_run run = {.first = reserved->first,
                           .count = MIN(wanted, reserved->count),
                           .is_fresh = reserved->first >= allocator->fresh_from};
    if (!run.is_fresh)
        run.count = MIN(run.count, allocator->fresh_from - run.first);
    reserved->first += run.count;
    reserved->count -= run.count;
    allocator->fresh_from = MAX(allocator->fresh_from, reserved->first);
    *out_run = run;
    return NULL;
}

bool qcow_allocator_is_ready(const struct qcow_allocator *allocator, bool *out_is_fresh)
{
    *out_is_fresh = allocator->reserved.first >= allocator->fresh_from;
    return allocator->reserved.count > 0 && allocator->holes.count == 0 &&
           !allocator->has_met_table;
}

/* Failing to lower a count leaks the cluster, which the format allows. */
static void set_free(struct qcow_allocator *allocator, uint64_t first, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        struct err *err = qcow_refcounts_set(allocator->refcounts, first + i, 0);
        err_free(err);
    }
    add_hole(&allocator->holes, first, count);
}

void qcow_allocator_untake(struct qcow_allocator *allocator, const struct qcow_run *run)
{
    if (run->first + run->count == allocator->reserved.first) {
        allocator->reserved.first -= run->count;
        allocator->reserved.count += run->count;
    } else {
        set_free(allocator, run->first, run->count);
    }
}

/* Ends the file with what was taken, if the rest is all reserved; gives the host back what it
 * reserved behind the end too. */
static void shorten(const struct qcow_allocator *allocator)
{
    const struct qcow_run *reserved = &allocator->reserved;
    uint64_t bytes;

    struct err *err = host_file_size(allocator->file, &bytes);
    uint64_t end = divide_up(bytes, (uint64_t)1 << allocator->cluster_bits);
    bool is_last = err == NULL && end > reserved->first && end <= reserved->first + reserved->count;
    if (is_last)
        bytes = reserved->first << allocator->cluster_bits;
    if (is_last || (err == NULL && allocator->may_preallocate))
        err = host_file_truncate(allocator->file, bytes);
    err_free(err); /* it only takes space */
}

void qcow_allocator_give_back(struct qcow_allocator *allocator)
{
    struct qcow_run *reserved = &allocator->reserved;

    if (reserved->count == 0)
        return;
    shorten(allocator);
    for (uint64_t i = 0; i < reserved->count; i++)
        err_free(qcow_refcounts_set(allocator->refcounts, reserved->first + i, 0));
    allocator->tail = MIN(allocator->tail, reserved->first);
    *reserved = (struct qcow_run){.first = reserved->first};
}

/* Makes room for `count` more; false: no memory. */
static bool list_reserve(struct qcow_cluster_list *list, size_t count)
{
    if (list->capacity - list->count >= count)
        return true;

    size_t wanted = MAX(list->count + count, LIST_CAPACITY_MIN);
    size_t capacity = MAX(list->capacity * 2, wanted);
    uint64_t *clusters = realloc(list->clusters, capacity * sizeof(*clusters));
    if (clusters == NULL)
        return false;
    list->clusters = clusters;
    list->capacity = capacity;
    return true;
}

void qcow_allocator_drop(struct qcow_allocator *allocator, uint64_t offset, uint64_t len)
{
    uint64_t first = offset >> allocator->cluster_bits;
    uint64_t last = (offset + len - 1) >> allocator->cluster_bits;

    if (!list_reserve(&allocator->dropped, last - first + 1))
        return; /* they leak, which the format allows */
    for (uint64_t cluster = first; cluster <= last; cluster++)
        allocator->dropped.clusters[allocator->dropped.count++] = cluster;
}

void qcow_allocator_capture(struct qcow_allocator *allocator)
{
    struct qcow_cluster_list empty = allocator->releasing;

    allocator->releasing = allocator->dropped;
    allocator->dropped = empty;
}

void qcow_allocator_restore(struct qcow_allocator *allocator)
{
    struct qcow_cluster_list *from = &allocator->releasing, *to = &allocator->dropped;

    if (from->count > 0 && list_reserve(to, from->count)) {
        memcpy(to->clusters + to->count, from->clusters, from->count * sizeof(*from->clusters));
        to->count += from->count;
    }
    from->count = 0;
}

static int compare_clusters(const void *a, const void *b)
{
    const uint64_t *left = a, *right = b;

    return *left < *right ? -1 : *left > *right;
}

/* A table other than for entries is never given up by an entry, unless that is malformed. */
static bool is_releasable(const struct qcow_allocator *allocator, uint64_t cluster)
{
    enum qcow_table_kind kind = qcow_guard_kind(allocator->guard, cluster);

    return kind == QCOW_TABLE_NONE || kind == QCOW_TABLE_L2;
}

/* Shared clusters lose a reference at once; those that lost their last one stay in the list. */
void qcow_allocator_release_begin(struct qcow_allocator *allocator)
{
    struct qcow_cluster_list *list = &allocator->releasing;
    size_t kept = 0;

    if (list->count > 0)
        qsort(list->clusters, list->count, sizeof(*list->clusters), compare_clusters);
    for (size_t i = 0; i < list->count; i++) {
        uint64_t cluster = list->clusters[i], count = 0;
        struct err *err = qcow_refcounts_get(allocator->refcounts, cluster, &count);
        if (err == NULL && count == 1 && is_releasable(allocator, cluster))
            list->clusters[kept++] = cluster;
        else if (err == NULL && count > 1)
            err = qcow_refcounts_set(allocator->refcounts, cluster, count - 1);
        err_free(err);
    }
    list->count = kept;
}

/* How many clusters of the sorted list from `first` on follow each other. */
static size_t adjacent(const struct qcow_cluster_list *list, size_t first)
{
    size_t count = 1;

    while (first + count < list->count &&
           list->clusters[first + count] == list->clusters[first] + count)
        count++;
    return count;
}

/* The clusters are still counted, so nobody can be given one that is being punched. What the host
 * can not punch just keeps its space. */
void qcow_allocator_punch_released(const struct qcow_allocator *allocator)
{
    const struct qcow_cluster_list *list = &allocator->releasing;

    for (size_t i = 0, run; i < list->count; i += run) {
        run = adjacent(list, i);
        err_free(host_file_punch(allocator->file, list->clusters[i] << allocator->cluster_bits,
                                 (uint64_t)run << allocator->cluster_bits));
    }
}

void qcow_allocator_release_end(struct qcow_allocator *allocator)
{
    const struct qcow_cluster_list *list = &allocator->releasing;

    for (size_t i = 0, run; i < list->count; i += run) {
        run = adjacent(list, i);
        qcow_guard_remove(allocator->guard, list->clusters[i], run);
        set_free(allocator, list->clusters[i], run);
    }
    allocator->releasing.count = 0;
}
