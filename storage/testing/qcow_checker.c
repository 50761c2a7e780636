/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_checker.c - see qcow_checker.h.
 * Tested by: qcow_power_cut_test.c, which also shows that it can find faults.
 */
#include "storage/testing/qcow_checker.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COPIED      ((uint64_t)1 << 63)
#define COMPRESSED  ((uint64_t)1 << 62)
#define OFFSET_BITS 0x00fffffffffffe00u

struct checker {
    const uint8_t *image;
    size_t len;
    uint32_t version, cluster_bits, l1_entries, order;
    uint64_t l1_offset, table_offset, table_bytes;
    uint64_t cluster_count; /* of the file, the last one perhaps cut short */
    uint32_t *references;
    struct qcow_verdict verdict;
};

__attribute__((format(printf, 2, 3))) static void complain(struct checker *checker, const char *fmt,
                                                           ...)
{
    va_list args;

    if (checker->verdict.errors++ > 0)
        return;
    va_start(args, fmt);
    (void)vsnprintf(checker->verdict.first, sizeof(checker->verdict.first), fmt, args);
    va_end(args);
}

/* Big endian; bytes behind the end of the file are zeros. */
static uint64_t number_at(const struct checker *checker, uint64_t offset, unsigned bytes)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < bytes; i++)
        value = value << 8 | (offset + i < checker->len ? checker->image[offset + i] : 0);
    return value;
}

static uint64_t cluster_bytes(const struct checker *checker)
{
    return (uint64_t)1 << checker->cluster_bits;
}

static void parse(struct checker *checker)
{
    checker->version = (uint32_t)number_at(checker, 4, 4);
    checker->cluster_bits = (uint32_t)number_at(checker, 20, 4);
    checker->l1_entries = (uint32_t)number_at(checker, 36, 4);
    checker->l1_offset = number_at(checker, 40, 8);
    checker->table_offset = number_at(checker, 48, 8);
    checker->table_bytes = number_at(checker, 56, 4) << checker->cluster_bits;
    checker->order = checker->version == 2 ? 4 : (uint32_t)number_at(checker, 96, 4);
    checker->cluster_count = (checker->len + cluster_bytes(checker) - 1) >> checker->cluster_bits;
}

static bool is_in_file(const struct checker *checker, uint64_t offset)
{
    return offset % cluster_bytes(checker) == 0 &&
           offset >> checker->cluster_bits < checker->cluster_count;
}

/* One reference to each cluster of a range. */
static void refer(struct checker *checker, const char *what, uint64_t offset, uint64_t bytes)
{
    for (uint64_t at = offset; at < offset + bytes; at += cluster_bytes(checker)) {
        if (is_in_file(checker, at))
            checker->references[at >> checker->cluster_bits]++;
        else
            complain(checker, "%s at 0x%llx is not in the file", what, (unsigned long long)at);
    }
}

static uint64_t count_of(const struct checker *checker, uint64_t cluster)
{
    unsigned width = 1u << (checker->order - 3);
    uint64_t per_block = cluster_bytes(checker) / width;
    uint64_t entry_at = cluster / per_block * 8;

    if (entry_at >= checker->table_bytes)
        return 0;
    uint64_t block = number_at(checker, checker->table_offset + entry_at, 8);
    return block == 0 ? 0 : number_at(checker, block + cluster % per_block * width, width);
}

/* qcow2: COPIED says that the count is exactly one. */
static void check_copied(struct checker *checker, const char *what, uint64_t entry)
{
    uint64_t cluster = (entry & OFFSET_BITS) >> checker->cluster_bits;

    if (((entry & COPIED) != 0) != (count_of(checker, cluster) == 1))
        complain(checker, "%s 0x%llx contradicts the count %llu", what, (unsigned long long)entry,
                 (unsigned long long)count_of(checker, cluster));
}

static void check_l2_table(struct checker *checker, uint64_t table)
{
    for (uint64_t i = 0; i < cluster_bytes(checker) / 8; i++) {
        uint64_t entry = number_at(checker, table + i * 8, 8);
        uint64_t reserved = entry & ~(OFFSET_BITS | COPIED | 1);
        if (reserved != 0 || (checker->version == 2 && (entry & 1) != 0))
            complain(checker, "L2 entry 0x%llx has reserved bits", (unsigned long long)entry);
        if ((entry & OFFSET_BITS) == 0)
            continue;
        refer(checker, "data", entry & OFFSET_BITS, 1);
        check_copied(checker, "L2 entry", entry);
    }
}

static void walk(struct checker *checker)
{
    refer(checker, "header", 0, 1);
    refer(checker, "L1 table", checker->l1_offset, (uint64_t)checker->l1_entries * 8);
    refer(checker, "refcount table", checker->table_offset, checker->table_bytes);
    for (uint64_t at = 0; at < checker->table_bytes; at += 8) {
        uint64_t block = number_at(checker, checker->table_offset + at, 8);
        if (block != 0)
            refer(checker, "refcount block", block, 1);
    }
    for (uint64_t i = 0; i < checker->l1_entries; i++) {
        uint64_t entry = number_at(checker, checker->l1_offset + i * 8, 8);
        if ((entry & ~(OFFSET_BITS | COPIED)) != 0)
            complain(checker, "L1 entry 0x%llx has reserved bits", (unsigned long long)entry);
        if ((entry & OFFSET_BITS) == 0)
            continue;
        refer(checker, "L2 table", entry & OFFSET_BITS, 1);
        check_copied(checker, "L1 entry", entry);
        check_l2_table(checker, entry & OFFSET_BITS);
    }
}

static void compare_counts(struct checker *checker)
{
    for (uint64_t cluster = 0; cluster < checker->cluster_count; cluster++) {
        uint64_t count = count_of(checker, cluster);
        if (count < checker->references[cluster])
            complain(checker, "cluster %llu has %u references and a count of %llu",
                     (unsigned long long)cluster, checker->references[cluster],
                     (unsigned long long)count);
        if (count > checker->references[cluster])
            checker->verdict.leaks++;
    }
}

struct qcow_verdict qcow_checker_run(const uint8_t *image, size_t len)
{
    struct checker checker = {.image = image, .len = len};

    parse(&checker);
    checker.references = calloc(checker.cluster_count, sizeof(*checker.references));
    if (checker.references == NULL) {
        complain(&checker, "no memory");
        return checker.verdict;
    }
    walk(&checker);
    compare_counts(&checker);
    free(checker.references);
    return checker.verdict;
}

enum qcow_sector qcow_checker_read(const uint8_t *image, size_t len, uint64_t guest_offset,
                                   uint8_t out_sector[512])
{
    struct checker checker = {.image = image, .len = len};

    parse(&checker);
    uint64_t per_table = cluster_bytes(&checker) / 8;
    uint64_t cluster = guest_offset >> checker.cluster_bits;
    uint64_t l1_entry = number_at(&checker, checker.l1_offset + cluster / per_table * 8, 8);
    uint64_t table = l1_entry & OFFSET_BITS;
    if (table == 0)
        return QCOW_SECTOR_BELOW;

    uint64_t entry = number_at(&checker, table + cluster % per_table * 8, 8);
    if (entry & COMPRESSED)
        return QCOW_SECTOR_BROKEN;
    if (entry & 1)
        return QCOW_SECTOR_ZERO;
    if ((entry & OFFSET_BITS) == 0)
        return QCOW_SECTOR_BELOW;
    uint64_t at = (entry & OFFSET_BITS) + (guest_offset & (cluster_bytes(&checker) - 1));
    for (unsigned i = 0; i < 512; i++)
        out_sector[i] = at + i < len ? image[at + i] : 0;
    return QCOW_SECTOR_DATA;
}
