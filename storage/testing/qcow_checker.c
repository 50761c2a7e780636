/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_checker.c - see qcow_checker.h.
 *
 * References are counted from the header on: tables first, each L2 table then once, however often
 * it is referred to, so that the work is bounded by the size of the file. What is counted is then
 * compared with what is stored, cluster by cluster.
 */
#include "storage/testing/qcow_checker.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "storage/testing/qcow_checker_internal.h"

#define STEPS_MAX     ((uint64_t)64 << 20)
#define USES_OF_GUEST ((uint8_t)(CHECKED_USE_DATA | CHECKED_USE_COMPRESSED))
#define USES_SHARED   ((uint8_t)(USES_OF_GUEST | CHECKED_USE_L2))

void checked_complain(struct checked_walk *walk, const char *fmt, ...)
{
    va_list args;

    if (walk->verdict.errors++ > 0)
        return;
    va_start(args, fmt);
    (void)vsnprintf(walk->verdict.first, sizeof(walk->verdict.first), fmt, args);
    va_end(args);
}

bool checked_may_go_on(struct checked_walk *walk, uint64_t steps)
{
    if (walk->steps > STEPS_MAX)
        return false;
    walk->steps += steps;
    if (walk->steps > STEPS_MAX)
        checked_complain(walk, "tables overlap so often that checking would not end");
    return walk->steps <= STEPS_MAX;
}

void checked_refer(struct checked_walk *walk, enum checked_use use, uint64_t offset, uint64_t bytes,
                   uint32_t references)
{
    const struct checked_image *image = &walk->image;
    uint64_t first = offset >> image->cluster_bits;

    if (bytes == 0)
        return;
    uint64_t end = divide_up(offset + bytes, image->cluster_bytes);
    /* One more than the file has: references may reach a little behind its end. */
    for (uint64_t cluster = first; cluster < MIN(end, image->cluster_count + 1); cluster++) {
        walk->references[cluster] += references;
        walk->uses[cluster] |= (uint8_t)use;
        if (!checked_may_go_on(walk, 1))
            return;
    }
    /* Less than a cluster behind the end is what QEMU leaves. */
    if (offset + bytes > image->len && offset + bytes - image->len >= image->cluster_bytes)
        checked_complain(walk, "a reference to 0x%llx reaches behind the end of the file",
                         (unsigned long long)offset);
}

void checked_walk_l1(struct checked_walk *walk, uint64_t offset, uint64_t entries)
{
    const struct checked_image *image = &walk->image;

    for (uint64_t i = 0; i < entries && offset + i * 8 < image->len; i++) {
        uint64_t entry = checked_number(image, offset + i * 8, 8);
        uint64_t table = entry & CHECKED_OFFSET_BITS;
        if (!checked_may_go_on(walk, 1))
            return;
        if ((entry & ~(CHECKED_OFFSET_BITS | CHECKED_COPIED)) != 0)
            checked_complain(walk, "L1 entry 0x%llx has reserved bits", (unsigned long long)entry);
        if (table == 0)
            continue;
        if (!checked_is_cluster_start(image, table)) {
            checked_complain(walk, "the L2 table at 0x%llx is not aligned or not in the file",
                             (unsigned long long)table);
            continue;
        }
        checked_refer(walk, CHECKED_USE_L2, table, image->cluster_bytes, 1);
        walk->tables[table >> image->cluster_bits]++;
    }
}

static void walk_l2(struct checked_walk *walk, uint64_t table, uint32_t references)
{
    const struct checked_image *image = &walk->image;

    for (uint64_t i = 0; i < checked_entries_per_table(image); i++) {
        struct checked_entry entry = checked_entry_at(image, table, i);
        if (entry.fault != NULL)
            checked_complain(walk, "entry %llu of the L2 table at 0x%llx: %s",
                             (unsigned long long)i, (unsigned long long)table, entry.fault);
        if (entry.host_bytes == 0)
            continue;
        /* The range of a compressed cluster is counted from the start of its first sector. */
        checked_refer(walk, entry.is_compressed ? CHECKED_USE_COMPRESSED : CHECKED_USE_DATA,
                      align_down(entry.host_offset, 512),
                      entry.host_bytes + entry.host_offset % 512, references);
    }
}

static void walk_counts(struct checked_walk *walk)
{
    const struct checked_image *image = &walk->image;

    checked_refer(walk, CHECKED_USE_TABLE, image->table_offset, image->table_bytes, 1);
    for (uint64_t at = 0; at < image->table_bytes; at += 8) {
        if (image->table_offset + at >= image->len)
            return;
        uint64_t block = checked_number(image, image->table_offset + at, 8);
        if (block == 0)
            continue;
        if (!checked_is_cluster_start(image, block))
            checked_complain(walk, "the refcount block at 0x%llx is not aligned or not in the file",
                             (unsigned long long)block);
        else
            checked_refer(walk, CHECKED_USE_BLOCK, block, image->cluster_bytes, 1);
    }
}

static void walk_all(struct checked_walk *walk)
{
    const struct checked_image *image = &walk->image;

    checked_refer(walk, CHECKED_USE_HEADER, 0, image->cluster_bytes, 1);
    checked_refer(walk, CHECKED_USE_L1, image->l1_offset, (uint64_t)image->l1_entries * 8, 1);
    checked_walk_l1(walk, image->l1_offset, image->l1_entries);
    walk_counts(walk);
    checked_walk_snapshots(walk);
    checked_walk_bitmaps(walk);
    if (image->crypt_bytes > 0 && image->crypt_bytes <= image->len)
        checked_refer(walk, CHECKED_USE_EXTRA, image->crypt_offset, image->crypt_bytes, 1);
    for (uint64_t cluster = 0; cluster < image->cluster_count; cluster++)
        if (walk->tables[cluster] > 0)
            walk_l2(walk, cluster << image->cluster_bits, walk->tables[cluster]);
}

/* qcow2: COPIED says that the count is exactly one. Snapshots' own tables need not. */
static void check_copied(struct checked_walk *walk, const char *what, uint64_t entry)
{
    uint64_t cluster = (entry & CHECKED_OFFSET_BITS) >> walk->image.cluster_bits;
    uint64_t count = checked_count(&walk->image, cluster);
    bool is_copied = (entry & CHECKED_COPIED) != 0;

    if (is_copied != (count == 1))
        checked_complain(walk, "%s 0x%llx contradicts the count %llu", what,
                         (unsigned long long)entry, (unsigned long long)count);
    if (is_copied && cluster <= walk->image.cluster_count && walk->references[cluster] > 1) {
        walk->verdict.hazards++;
        checked_complain(walk, "%s 0x%llx could be written in place and has %u references", what,
                         (unsigned long long)entry, walk->references[cluster]);
    }
}

static void check_active(struct checked_walk *walk)
{
    const struct checked_image *image = &walk->image;

    for (uint64_t i = 0; i < image->l1_entries && image->l1_offset + i * 8 < image->len; i++) {
        uint64_t l1_entry = checked_number(image, image->l1_offset + i * 8, 8);
        uint64_t table = l1_entry & CHECKED_OFFSET_BITS;
        if (table == 0 || !checked_is_cluster_start(image, table))
            continue;
        check_copied(walk, "L1 entry", l1_entry);
        if (!checked_may_go_on(walk, checked_entries_per_table(image)))
            return;
        for (uint64_t j = 0; j < checked_entries_per_table(image); j++) {
            struct checked_entry entry = checked_entry_at(image, table, j);
            if (!entry.is_compressed && entry.host_offset != 0)
                check_copied(walk, "L2 entry", entry.word);
        }
    }
}

static void check_clusters(struct checked_walk *walk)
{
    for (uint64_t cluster = 0; cluster <= walk->image.cluster_count; cluster++) {
        uint64_t count = checked_count(&walk->image, cluster);
        uint32_t references = walk->references[cluster];
        uint8_t uses = walk->uses[cluster];
        if (count < references)
            checked_complain(walk, "cluster %llu has %u references and a count of %llu",
                             (unsigned long long)cluster, references, (unsigned long long)count);
        if (count > references && cluster < walk->image.cluster_count)
            walk->verdict.leaks++;
        /* Packed and plain data may share a cluster, if strangely: neither is written in place. */
        bool is_guest_data = (uses & ~USES_OF_GUEST) == 0;
        if (!is_guest_data && (uses & (uses - 1)) != 0)
            checked_complain(walk, "cluster %llu has more than one use: 0x%x",
                             (unsigned long long)cluster, uses);
        if ((uses & ~USES_SHARED) != 0 && references > 1)
            checked_complain(walk, "cluster %llu of a table has %u references",
                             (unsigned long long)cluster, references);
    }
}

static void finish_walk(struct checked_walk *walk)
{
    free(walk->references);
    free(walk->tables);
    free(walk->uses);
}

static void start_walk(struct checked_walk *walk, const uint8_t *image, size_t len)
{
    *walk = (struct checked_walk){.steps = 0};
    const char *fault = checked_image_parse(&walk->image, image, len);
    if (fault == NULL) {
        size_t count = (size_t)walk->image.cluster_count;
        walk->references = calloc(count + 1, sizeof(*walk->references));
        walk->tables = calloc(count + 1, sizeof(*walk->tables));
        walk->uses = calloc(count + 1, sizeof(*walk->uses));
        if (walk->references == NULL || walk->tables == NULL || walk->uses == NULL)
            fault = "no memory";
    }
    walk->verdict.is_dirty = (walk->image.incompatible & 1) != 0;
    walk->verdict.is_corrupt = (walk->image.incompatible & 2) != 0;
    walk->verdict.is_refused = fault != NULL;
    if (fault != NULL)
        checked_complain(walk, "%s", fault);
    else
        walk_all(walk);
}

struct qcow_verdict qcow_checker_run(const uint8_t *image, size_t len)
{
    struct checked_walk walk;

    start_walk(&walk, image, len);
    if (!walk.verdict.is_refused) {
        check_active(&walk);
        check_clusters(&walk);
    }
    finish_walk(&walk);
    return walk.verdict;
}

uint8_t *qcow_checker_metadata(const uint8_t *image, size_t len, size_t *out_count,
                               unsigned *out_cluster_bits)
{
    struct checked_walk walk;
    uint8_t *uses = NULL;

    start_walk(&walk, image, len);
    if (!walk.verdict.is_refused) {
        for (uint64_t i = 0; i < walk.image.cluster_count; i++)
            walk.uses[i] &= (uint8_t)~USES_OF_GUEST;
        uses = walk.uses;
        walk.uses = NULL;
        *out_count = (size_t)walk.image.cluster_count;
        *out_cluster_bits = walk.image.cluster_bits;
    }
    finish_walk(&walk);
    return uses;
}
