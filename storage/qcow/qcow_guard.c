/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_guard.c - see qcow_guard.h.
 */
#include "storage/qcow/qcow_guard.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "storage/qcow/qcow_header.h"
#include "storage/qcow/qcow_l1.h"
#include "storage/qcow/qcow_refcounts.h"
#include "storage/qcow/qcow_snapshot_table.h"

#define CAPACITY_MIN ((size_t)32)

static const char *const names[] = {
    [QCOW_TABLE_NONE] = "guest data",
    [QCOW_TABLE_HEADER] = "header",
    [QCOW_TABLE_L1] = "L1 table",
    [QCOW_TABLE_L2] = "L2 table",
    [QCOW_TABLE_REFCOUNTS] = "refcounts",
    [QCOW_TABLE_SNAPSHOTS] = "snapshot table",
    [QCOW_TABLE_BITMAPS] = "bitmap directory",
};

static uint64_t end_of(const struct qcow_guarded *range)
{
    return range->first + range->count;
}

/* The first range that ends behind the cluster; count: none does. */
static size_t find(const struct qcow_guard *guard, uint64_t cluster)
{
    size_t low = 0, high = guard->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (end_of(&guard->ranges[middle]) <= cluster)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct err *make_room(struct qcow_guard *guard)
{
    if (guard->count < guard->capacity)
        return NULL;

    size_t capacity = MAX(guard->capacity * 2, CAPACITY_MIN);
    struct qcow_guarded *ranges = realloc(guard->ranges, capacity * sizeof(*ranges));
    if (ranges == NULL)
        return err_new(ERR_NO_MEMORY, "the list of an image's tables");
    guard->ranges = ranges;
    guard->capacity = capacity;
    return NULL;
}

static struct err *insert(struct qcow_guard *guard, size_t at, struct qcow_guarded range)
{
    TRY(make_room(guard));
    memmove(&guard->ranges[at + 1], &guard->ranges[at],
            (guard->count - at) * sizeof(*guard->ranges));
    guard->ranges[at] = range;
    guard->count++;
    return NULL;
}

static void erase(struct qcow_guard *guard, size_t at)
{
    guard->count--;
    memmove(&guard->ranges[at], &guard->ranges[at + 1],
            (guard->count - at) * sizeof(*guard->ranges));
}

static struct err *overlap(const struct qcow_guarded *a, const struct qcow_guarded *b)
{
    return err_new(ERR_INVALID,
                   "cluster %llu is used as %s and as %s; repair a copy of the image with "
                   "'vm-disk check -r all'",
                   (unsigned long long)MAX(a->first, b->first), names[a->kind], names[b->kind]);
}

enum qcow_table_kind qcow_guard_kind(const struct qcow_guard *guard, uint64_t cluster)
{
    size_t at = find(guard, cluster);

    return at < guard->count && guard->ranges[at].first <= cluster ? guard->ranges[at].kind
                                                                   : QCOW_TABLE_NONE;
}

uint64_t qcow_guard_end(const struct qcow_guard *guard)
{
    return guard->count == 0 ? 0 : end_of(&guard->ranges[guard->count - 1]);
}

bool qcow_guard_covers(const struct qcow_guard *guard, enum qcow_table_kind kind, uint64_t offset,
                       uint64_t len)
{
    uint64_t cluster = offset >> guard->cluster_bits;
    uint64_t last = (offset + len - 1) >> guard->cluster_bits;

    while (cluster <= last) {
        size_t at = find(guard, cluster);
        if (at == guard->count || guard->ranges[at].first > cluster ||
            guard->ranges[at].kind != kind)
            return false;
        cluster = end_of(&guard->ranges[at]);
    }
    return true;
}

struct err *qcow_guard_add(struct qcow_guard *guard, enum qcow_table_kind kind, uint64_t first,
                           uint64_t count)
{
    struct qcow_guarded range = {.first = first, .count = count, .kind = kind};
    size_t at = find(guard, first);

    if (count == 0)
        return NULL;
    if (at < guard->count && guard->ranges[at].first < end_of(&range))
        return overlap(&guard->ranges[at], &range);

    struct qcow_guarded *before = at > 0 ? &guard->ranges[at - 1] : NULL;
    struct qcow_guarded *after = at < guard->count ? &guard->ranges[at] : NULL;
    bool joins_before = before != NULL && before->kind == kind && end_of(before) == first;
    bool joins_after = after != NULL && after->kind == kind && after->first == end_of(&range);
    if (joins_before) {
        before->count += count + (joins_after ? after->count : 0);
        if (joins_after)
            erase(guard, at);
        return NULL;
    }
    if (joins_after) {
        after->first = first;
        after->count += count;
        return NULL;
    }
    return insert(guard, at, range);
}

void qcow_guard_remove(struct qcow_guard *guard, uint64_t first, uint64_t count)
{
    uint64_t end = first + count;

    for (size_t at = find(guard, first); at < guard->count && guard->ranges[at].first < end;
         at = find(guard, first)) {
        struct qcow_guarded *range = &guard->ranges[at];
        struct qcow_guarded rest = {.first = end, .kind = range->kind};
        uint64_t range_end = end_of(range);
        rest.count = range_end - MIN(range_end, end);
        if (range->first < first && rest.count > 0) {
            struct err *err = insert(guard, at + 1, rest);
            if (err == NULL)
                guard->ranges[at].count = first - guard->ranges[at].first;
            err_free(err);
            return;
        }
        if (range->first < first)
            range->count = first - range->first;
        else if (rest.count > 0)
            *range = rest;
        else
            erase(guard, at);
    }
}

static struct err *add_bytes(struct qcow_guard *guard, enum qcow_table_kind kind, uint64_t offset,
                             uint64_t bytes)
{
    return qcow_guard_add(guard, kind, offset >> guard->cluster_bits,
                          divide_up(bytes, (uint64_t)1 << guard->cluster_bits));
}

struct err *qcow_guard_init(struct qcow_guard *guard, const struct qcow_header *header)
{
    *guard = (struct qcow_guard){.cluster_bits = header->cluster_bits};
    TRY(qcow_guard_add(guard, QCOW_TABLE_HEADER, 0, 1));
    TRY(add_bytes(guard, QCOW_TABLE_L1, header->l1_offset, (uint64_t)header->l1_entries * 8));
    return qcow_guard_add(guard, QCOW_TABLE_REFCOUNTS,
                          header->refcount_table_offset >> header->cluster_bits,
                          header->refcount_table_clusters);
}

static int compare_ranges(const void *a, const void *b)
{
    const struct qcow_guarded *left = a, *right = b;

    return left->first < right->first ? -1 : left->first > right->first;
}

/* Many ranges at once, in any order. */
static struct err *append(struct qcow_guard *guard, enum qcow_table_kind kind, uint64_t offset)
{
    if (offset == 0)
        return NULL;
    TRY(make_room(guard));
    guard->ranges[guard->count++] =
        (struct qcow_guarded){.first = offset >> guard->cluster_bits, .count = 1, .kind = kind};
    return NULL;
}

static struct err *sort(struct qcow_guard *guard)
{
    size_t kept = 0;

    qsort(guard->ranges, guard->count, sizeof(*guard->ranges), compare_ranges);
    for (size_t i = 1; i < guard->count; i++) {
        struct qcow_guarded *last = &guard->ranges[kept], *next = &guard->ranges[i];
        if (next->first < end_of(last))
            return overlap(last, next);
        if (next->first == end_of(last) && next->kind == last->kind)
            last->count += next->count;
        else
            guard->ranges[++kept] = *next;
    }
    guard->count = kept + 1; /* the header at least */
    return NULL;
}

static struct err *add_snapshots(struct qcow_guard *guard, struct host_file *file,
                                 const struct qcow_header *header)
{
    struct qcow_snapshot_table table = {.list = NULL};

    if (header->snapshot_count == 0)
        return NULL;
    struct err *err = qcow_snapshot_table_load(file, header, &table);
    if (err == NULL)
        err = add_bytes(guard, QCOW_TABLE_SNAPSHOTS, header->snapshots_offset, table.table_bytes);
    for (uint32_t i = 0; err == NULL && i < table.count; i++)
        err = add_bytes(guard, QCOW_TABLE_SNAPSHOTS, table.list[i].l1_offset,
                        (uint64_t)table.list[i].l1_entries * 8);
    qcow_snapshot_table_finish(&table);
    return err;
}

struct err *qcow_guard_load(struct qcow_guard *guard, struct host_file *file,
                            const struct qcow_header *header, const struct qcow_l1 *l1,
                            const struct qcow_refcounts *refcounts)
{
    for (uint64_t i = 0; i < refcounts->table_entries; i++)
        TRY(append(guard, QCOW_TABLE_REFCOUNTS, refcounts->table[i]));
    for (uint32_t i = 0; i < l1->count; i++)
        TRY(append(guard, QCOW_TABLE_L2, l1->entries[i] & QCOW_OFFSET_MASK));
    TRY(sort(guard));
    if (qcow_header_has_bitmaps(header))
        TRY(add_bytes(guard, QCOW_TABLE_BITMAPS, header->bitmap_directory_offset,
                      header->bitmap_directory_bytes));
    return add_snapshots(guard, file, header);
}

void qcow_guard_finish(struct qcow_guard *guard)
{
    free(guard->ranges);
}
