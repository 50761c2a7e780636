/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_check_tables.c - the L1 and L2 tables of an image: what they refer to, and their flags.
 * Tested by: qcow_check_test.c
 */
#include <inttypes.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/checked_math.h"
#include "base/cleanup.h"
#include "storage/qcow/qcow_check_internal.h"

/* One L2 table while it is walked. */
struct table {
    uint64_t offset;
    uint32_t times;     /* how many L1 entries lead to it */
    bool is_active;     /* the active L1 table does */
    uint64_t next_host; /* where the next cluster would be if the file were in one piece */
};

/* qcow2, "L1 table entry": COPIED says that the count is exactly one. Tables that only snapshots
 * have are not held to it. */
static struct err *check_copied(struct qcow_check *check, uint64_t offset, bool is_copied,
                                const char *what)
{
    uint64_t count;

    TRY(qcow_check_stored(check, offset >> check->header.cluster_bits, &count));
    if ((count == 1) != is_copied) {
        check->report.flag_errors++;
        qcow_check_error(check, "%s at %" PRIu64 " is marked as %s, but its count is %" PRIu64,
                         what, offset, is_copied ? "referenced once" : "shared", count);
    }
    return NULL;
}

/* To QEMU such an entry holds nothing, so that is what a repair makes of it. */
static void lone_flag(struct qcow_check *check, const char *what)
{
    check->report.flag_errors++;
    qcow_check_error(check, "%s is marked as referenced once, and refers to nothing", what);
}

static struct err *check_l1_entry(struct qcow_check *check, uint64_t entry, bool is_active)
{
    uint64_t offset = entry & QCOW_OFFSET_MASK;
    enum qcow_owner before;
    bool is_usable = false;

    if (entry == QCOW_ENTRY_COPIED && is_active) {
        lone_flag(check, "an L1 entry");
        return NULL;
    }
    if ((entry & ~(QCOW_OFFSET_MASK | QCOW_ENTRY_COPIED)) != 0 ||
        offset % check->cluster_bytes != 0 || (offset == 0 && entry != 0)) {
        qcow_check_error(check, "the L1 entry 0x%" PRIx64 " is malformed", entry);
        return NULL;
    }
    if (offset == 0)
        return NULL;
    TRY(qcow_check_refer(check, offset, check->cluster_bytes, 1, QCOW_OWNER_L2, &is_usable));
    if (!is_usable)
        return NULL;
    uint64_t cluster = offset >> check->header.cluster_bits;
    if (!qcow_reference_map_add(&check->tables, cluster, 1, QCOW_OWNER_L2, &before) ||
        (is_active && !qcow_reference_map_add(&check->active, cluster, 1, QCOW_OWNER_L2, &before)))
        return err_new(ERR_NO_MEMORY, "L2 tables");
    return is_active ? check_copied(check, offset, (entry & QCOW_ENTRY_COPIED) != 0, "the L2 table")
                     : NULL;
}

struct err *qcow_check_l1(struct qcow_check *check, uint64_t offset, uint32_t entries,
                          bool is_active)
{
    size_t bytes = (size_t)entries * 8;
    CLEANUP(cleanup_free) uint8_t *data = malloc(bytes + 1);
    bool is_usable = false;

    if (data == NULL)
        return err_new(ERR_NO_MEMORY, "L1 table");
    TRY(qcow_check_refer(check, offset, bytes, 1,
                         is_active ? QCOW_OWNER_L1 : QCOW_OWNER_SNAPSHOT_L1, &is_usable));
    if (!is_usable)
        return NULL;
    TRY(host_file_read_bytes(check->file, data, bytes, offset));
    struct reader in = reader_of(data, bytes);
    for (uint32_t i = 0; i < entries; i++)
        TRY(check_l1_entry(check, reader_be64(&in), is_active));
    return NULL;
}

static void note_place(struct qcow_check *check, struct table *table, uint64_t host_offset)
{
    check->report.allocated_clusters++;
    if (table->next_host != 0 && host_offset != table->next_host)
        check->report.fragmented_clusters++;
    table->next_host = host_offset + check->cluster_bytes;
}

/* qcow2, "Compressed Clusters Descriptor": what counts is the sectors, which may lie in several
 * clusters of the file, and the last of which may reach past its end. Some programs say more
 * sectors than there are; by a cluster and more it is data that is missing, as for QEMU. */
static struct err *check_compressed(struct qcow_check *check, struct table *table,
                                    const struct qcow_cluster *cluster)
{
    uint64_t end = check->end_cluster << check->header.cluster_bits;
    uint64_t len = cluster->compressed_bytes;
    bool is_usable;

    bool is_missing = cluster->host_offset >= check->file_bytes ||
                      cluster->host_offset + len >= check->file_bytes + check->cluster_bytes;
    if (is_missing && cluster->host_offset < end) {
        qcow_check_error(check, "compressed data at %" PRIu64 " reaches past the end of the file",
                         cluster->host_offset);
        return NULL;
    }
    if (cluster->host_offset < end)
        len = MIN(len, end - cluster->host_offset);
    if (table->is_active) {
        check->report.allocated_clusters++;
        check->report.compressed_clusters++;
        check->report.fragmented_clusters++; /* always: it has to be unpacked */
    }
    return qcow_check_refer(check, cluster->host_offset, len, table->times, QCOW_OWNER_DATA,
                            &is_usable);
}

static struct err *check_l2_entry(struct qcow_check *check, struct table *table,
                                  struct qcow_entry entry)
{
    struct qcow_cluster cluster;
    bool is_usable = false;

    if (entry.descriptor == QCOW_ENTRY_COPIED && (uint32_t)entry.bitmap == 0 && table->is_active) {
        lone_flag(check, "an L2 entry");
        return NULL;
    }
    if (!qcow_l2_entry_decode(entry, &check->context, &cluster)) {
        qcow_check_error(check,
                         "the L2 entry 0x%" PRIx64 " in the table at %" PRIu64 " is malformed",
                         entry.descriptor, table->offset);
        return NULL;
    }
    if (cluster.is_compressed)
        return check_compressed(check, table, &cluster);
    if (cluster.host_offset == 0)
        return NULL;
    TRY(qcow_check_refer(check, cluster.host_offset, check->cluster_bytes, table->times,
                         QCOW_OWNER_DATA, &is_usable));
    if (!is_usable || !table->is_active)
        return NULL;
    note_place(check, table, cluster.host_offset);
    return check_copied(check, cluster.host_offset, cluster.is_copied, "the cluster");
}

static struct err *check_table(struct qcow_check *check, struct table *table, uint8_t *data)
{
    bool is_extended = qcow_entry_is_extended(&check->context);
    uint64_t entries = (uint64_t)1 << qcow_entry_table_bits(&check->context);

    TRY(host_file_read_bytes(check->file, data, check->cluster_bytes, table->offset));
    struct reader in = reader_of(data, check->cluster_bytes);
    for (uint64_t i = 0; i < entries; i++) {
        struct qcow_entry entry = {.descriptor = reader_be64(&in)};
        if (is_extended)
            entry.bitmap = reader_be64(&in);
        TRY(check_l2_entry(check, table, entry));
    }
    return NULL;
}

static struct err *check_chunk(struct qcow_check *check, const struct qcow_reference_chunk *chunk,
                               uint8_t *data)
{
    for (uint64_t i = 0; i < QCOW_REFERENCE_CHUNK_CLUSTERS; i++) {
        uint64_t cluster = (chunk->number << QCOW_REFERENCE_CHUNK_BITS) + i;
        struct table table = {.offset = cluster << check->header.cluster_bits,
                              .times = chunk->counts[i]};
        if (table.times == 0)
            continue;
        table.is_active = qcow_reference_map_count(&check->active, cluster) > 0;
        TRY(check_table(check, &table, data));
    }
    return NULL;
}

struct err *qcow_check_l2_tables(struct qcow_check *check)
{
    CLEANUP(cleanup_free) uint8_t *data = malloc(check->cluster_bytes);
    const struct qcow_reference_chunk **chunks = qcow_reference_map_sorted(&check->tables);
    struct err *err = data == NULL || chunks == NULL ? err_new(ERR_NO_MEMORY, "L2 tables") : NULL;

    for (size_t i = 0; err == NULL && i < check->tables.chunk_count; i++)
        err = check_chunk(check, chunks[i], data);
    free((void *)chunks);
    return err;
}
