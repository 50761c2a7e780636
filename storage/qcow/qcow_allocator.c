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
#include "storage/qcow/qcow_header.h"
#include "storage/qcow/qcow_refcounts.h"

/* qcow2, "Standard Cluster Descriptor": offsets have bits 9 to 55. */
#define HOST_OFFSET_MAX ((uint64_t)1 << 55)

#define LIST_CAPACITY_MIN ((size_t)64)

struct err *qcow_allocator_init(struct qcow_allocator *allocator, struct host_file *file,
                                struct qcow_refcounts *refcounts, const struct qcow_header *header)
{
    uint64_t file_bytes;
    uint64_t cluster_bytes = (uint64_t)1 << header->cluster_bits;

    TRY(host_file_size(file, &file_bytes));
    uint64_t end = divide_up(file_bytes, cluster_bytes);
    *allocator = (struct qcow_allocator){
        .file = file,
        .refcounts = refcounts,
        .cluster_bits = header->cluster_bits,
        /* Holes inside the file are found once a discard moves the search down. */
        .next = end,
        .fresh_from = end,
        .l1 = {.first = header->l1_offset >> header->cluster_bits,
               .count = divide_up((uint64_t)header->l1_entries * 8, cluster_bytes)},
    };
    return NULL;
}

void qcow_allocator_finish(struct qcow_allocator *allocator)
{
    free(allocator->dropped.clusters);
    free(allocator->releasing.clusters);
}

bool qcow_allocator_is_table(const struct qcow_allocator *allocator, uint64_t cluster)
{
    const struct qcow_refcounts *refcounts = allocator->refcounts;
    uint64_t table_first = refcounts->table_offset >> allocator->cluster_bits;
    uint64_t table_count = refcounts->table_entries * 8 >> allocator->cluster_bits;

    return cluster == 0 || cluster - allocator->l1.first < allocator->l1.count ||
           cluster - table_first < table_count;
}

/* Moves `next` to the first free cluster, making refcount blocks on the way. */
static struct err *find_free(struct qcow_allocator *allocator)
{
    for (;;) {
        uint64_t cluster = allocator->next, count = 1;
        if (cluster >= HOST_OFFSET_MAX >> allocator->cluster_bits)
            return err_new(ERR_IO, "image '%s' is as large as the format allows",
                           allocator->file->path);
        if (!qcow_refcounts_covers(allocator->refcounts, cluster)) {
            TRY(qcow_refcounts_cover(allocator->refcounts, cluster, &count));
            allocator->next = cluster + count;
            allocator->fresh_from = MAX(allocator->fresh_from, allocator->next);
            continue;
        }
        TRY(qcow_refcounts_get(allocator->refcounts, cluster, &count));
        if (count == 0)
            break;
        allocator->next++;
    }
    if (qcow_allocator_is_table(allocator, allocator->next))
        return err_new(ERR_INVALID,
                       "image '%s' does not count its own tables; repair it with 'qemu-img check "
                       "-r all'",
                       allocator->file->path);
    return NULL;
}

static bool is_free_too(struct qcow_allocator *allocator, uint64_t cluster)
{
    uint64_t count = 1;

    if (!qcow_refcounts_covers(allocator->refcounts, cluster) ||
        qcow_allocator_is_table(allocator, cluster))
        return false;
    struct err *err = qcow_refcounts_get(allocator->refcounts, cluster, &count);
    err_free(err); /* a shorter run will do */
    return err == NULL && count == 0;
}

struct err *qcow_allocator_take(struct qcow_allocator *allocator, uint64_t wanted,
                                struct qcow_run *out_run)
{
    TRY(find_free(allocator));

    struct qcow_run run = {
        .first = allocator->next, .count = 1, .is_fresh = allocator->next >= allocator->fresh_from};
    if (!run.is_fresh)
        wanted = MIN(wanted, allocator->fresh_from - run.first);
    while (run.count < wanted && is_free_too(allocator, run.first + run.count))
        run.count++;
    for (uint64_t i = 0; i < run.count; i++)
        TRY(qcow_refcounts_set(allocator->refcounts, run.first + i, 1));
    allocator->next = run.first + run.count;
    allocator->fresh_from = MAX(allocator->fresh_from, allocator->next);
    *out_run = run;
    return NULL;
}

/* Failing to lower a count leaks the cluster, which the format allows. */
static void set_free(struct qcow_allocator *allocator, uint64_t cluster)
{
    struct err *err = qcow_refcounts_set(allocator->refcounts, cluster, 0);

    if (err == NULL)
        allocator->next = MIN(allocator->next, cluster);
    err_free(err);
}

void qcow_allocator_untake(struct qcow_allocator *allocator, const struct qcow_run *run)
{
    for (uint64_t i = 0; i < run->count; i++)
        set_free(allocator, run->first + i);
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
        if (err == NULL && count == 1 && !qcow_allocator_is_table(allocator, cluster))
            list->clusters[kept++] = cluster;
        else if (err == NULL && count > 1)
            err = qcow_refcounts_set(allocator->refcounts, cluster, count - 1);
        err_free(err);
    }
    list->count = kept;
}

/* The clusters are still counted, so nobody can be given one that is being punched. What the host
 * can not punch just keeps its space. */
void qcow_allocator_punch_released(const struct qcow_allocator *allocator)
{
    const struct qcow_cluster_list *list = &allocator->releasing;

    for (size_t i = 0, run; i < list->count; i += run) {
        for (run = 1; i + run < list->count; run++)
            if (list->clusters[i + run] != list->clusters[i] + run)
                break;
        err_free(host_file_punch(allocator->file, list->clusters[i] << allocator->cluster_bits,
                                 (uint64_t)run << allocator->cluster_bits));
    }
}

void qcow_allocator_release_end(struct qcow_allocator *allocator)
{
    for (size_t i = 0; i < allocator->releasing.count; i++)
        set_free(allocator, allocator->releasing.clusters[i]);
    allocator->releasing.count = 0;
}
