/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_snapshot.c - see qcow_snapshot.h.
 *
 * How it works. Each operation is an edit (qcow_edit.h), and its steps are ordered by what a power
 * cut may leave: counts are never below the references, and nothing that two trees share is marked
 * as one that may be overwritten.
 *
 * create: raise the counts of all that the active L1 table leads to, and clear the flags there;
 * write a copy of the L1 table and a new snapshot table; publish the latter.
 *
 * apply: raise the counts of all that the snapshot leads to, and clear the flags there, which are
 * from another time; write a copy of its L1 table; publish that, with the disk's size, as the
 * active one.
 *
 * delete: write a new snapshot table without it; publish that.
 *
 * The end of the edit lowers the counts of what was left behind, and sets the flags again where one
 * reference is left.
 */
#include "storage/qcow/qcow_snapshot.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/limits.h"
#include "storage/qcow/qcow_bitmap_resize.h"
#include "storage/qcow/qcow_edit.h"
#include "storage/qcow/qcow_layout.h"

#define NANOSECONDS_PER_SECOND 1000000000u
#define ID_BYTES_MAX           24u

struct err *qcow_snapshot_list(struct host_file *file, struct qcow_snapshot_table *out_table)
{
    struct qcow_header header;

    TRY(err_wrap(qcow_header_read(file, &header), "image '%s'", file->path));
    return qcow_snapshot_table_load(file, &header, out_table);
}

/* How a snapshot was named. */
struct wanted {
    const char *id;   /* NULL: not by that */
    const char *name; /* likewise */
};

/* How many there are; gives the first. */
static unsigned look_for(const struct qcow_snapshot_table *table, struct wanted wanted,
                         const struct qcow_snapshot **out_snapshot)
{
    unsigned count = 0;

    for (uint32_t i = table->count; i-- > 0;) {
        const struct qcow_snapshot *snapshot = &table->list[i];
        bool has_id = wanted.id != NULL && strcmp(snapshot->id, wanted.id) == 0;
        bool has_name = wanted.name != NULL && strcmp(snapshot->name, wanted.name) == 0;
        if (!has_id && !has_name)
            continue;
        *out_snapshot = snapshot;
        count++;
    }
    return count;
}

static const char *behind(const char *text, const char *prefix)
{
    size_t len = strlen(prefix);

    return strncmp(text, prefix, len) == 0 ? text + len : NULL;
}

struct err *qcow_snapshot_find(const struct qcow_snapshot_table *table, const char *text,
                               const struct qcow_snapshot **out_snapshot)
{
    unsigned count = look_for(table, (struct wanted){.id = text, .name = text}, out_snapshot);
    struct wanted exact = {.id = behind(text, "id="), .name = behind(text, "name=")};

    if (count == 0)
        count = look_for(table, exact, out_snapshot);
    if (count > 1)
        return err_new(ERR_STATE,
                       "it is the number of one and the name of another, or the name of several; "
                       "say id=NUMBER or name=NAME ('vm-disk snapshot' lists them)");
    return count == 1 ? NULL
                      : err_new(ERR_NOT_FOUND, "there is no such snapshot ('vm-disk snapshot' "
                                               "lists those that are)");
}

/* A snapshot table on its way into the file. */
struct draft {
    uint8_t *data; /* owned */
    size_t len;
    uint32_t count;
    uint64_t offset;
};

static struct err *place_table(struct qcow_edit *edit, const struct qcow_snapshot_table *table,
                               struct draft *draft)
{
    free(draft->data);
    draft->data = NULL;
    TRY(qcow_snapshot_table_build(table, &draft->data, &draft->len));
    draft->count = table->count;
    return qcow_edit_take(edit, draft->len, QCOW_OWNER_SNAPSHOT_TABLE, &draft->offset);
}

static struct err *publish_table(struct qcow_edit *edit, const struct draft *draft)
{
    uint8_t fields[12];
    struct writer out = writer_of(fields, sizeof(fields));

    TRY(qcow_edit_write(edit, draft->data, draft->len, draft->offset));
    writer_be32(&out, draft->count);
    writer_be64(&out, draft->offset);
    return qcow_edit_publish(edit, fields, sizeof(fields), QCOW_HEADER_AT_SNAPSHOTS);
}

static uint64_t next_id(const struct qcow_snapshot_table *table)
{
    uint64_t highest = 0;

    for (uint32_t i = 0; i < table->count; i++)
        highest = MAX(highest, (uint64_t)strtoull(table->list[i].id, NULL, 10));
    return highest == UINT64_MAX ? highest : highest + 1;
}

static struct err *check_create(const struct qcow_header *header,
                                const struct qcow_snapshot_table *table, const char *name)
{
    if (header->refcount_order == 0)
        return err_new(
            ERR_INCOMPATIBLE,
            "counts of 1 bit can not say that two share a cluster; copy the image to one "
            "with wider counts ('vm-disk convert')");
    if (name[0] == '\0' || strlen(name) > QCOW_SNAPSHOT_NAME_MAX)
        return err_new(ERR_INVALID, "a name has 1 to %u bytes", QCOW_SNAPSHOT_NAME_MAX);
    for (uint32_t i = 0; i < table->count; i++)
        if (strcmp(table->list[i].name, name) == 0)
            return err_new(ERR_STATE, "there is a snapshot of this name already; take another, or "
                                      "delete that one first ('vm-disk snapshot -d')");
    return NULL;
}

/* The table has room for one more. Its texts are borrowed while it is built. */
static struct err *build_with(struct qcow_edit *edit, struct qcow_snapshot_table *table,
                              const struct qcow_snapshot *added, struct draft *draft)
{
    struct qcow_snapshot_table longer = {.count = table->count + 1};

    longer.list = calloc(longer.count, sizeof(*longer.list));
    if (longer.list == NULL)
        return err_new(ERR_NO_MEMORY, "snapshots");
    if (table->count > 0)
        memcpy(longer.list, table->list, table->count * sizeof(*longer.list));
    longer.list[table->count] = *added;
    struct err *err = place_table(edit, &longer, draft);
    free(longer.list);
    return err;
}

static struct err *create(struct qcow_edit *edit, struct qcow_snapshot_table *table,
                          struct qcow_snapshot *added, struct qcow_edit_l1 *l1, struct draft *draft)
{
    const struct qcow_header *header = &edit->check.header;

    TRY(check_create(header, table, added->name));
    (void)snprintf(added->id, ID_BYTES_MAX, "%" PRIu64, next_id(table));
    added->l1_entries = header->l1_entries;
    added->disk_bytes = header->virtual_bytes;
    added->icount = QCOW_SNAPSHOT_ICOUNT_OFF;
    TRY(qcow_edit_l1_load(edit, header->l1_offset, header->l1_entries, l1));
    TRY(qcow_edit_refer_tree(edit, l1));
    TRY(qcow_edit_take(edit, (uint64_t)l1->count * 8, QCOW_OWNER_SNAPSHOT_L1, &added->l1_offset));
    TRY(build_with(edit, table, added, draft));
    TRY(qcow_edit_raise(edit));
    TRY(qcow_edit_l1_share(edit, l1));
    TRY(qcow_edit_l1_write(edit, l1, header->l1_offset));
    TRY(qcow_edit_l1_write(edit, l1, added->l1_offset));
    return publish_table(edit, draft);
}

static struct err *begin(struct host_file *file, struct qcow_edit *edit,
                         struct qcow_snapshot_table *out_table)
{
    TRY(qcow_edit_begin(edit, file));
    struct err *err = qcow_snapshot_table_load(file, &edit->check.header, out_table);
    return err == NULL ? NULL : qcow_edit_end(edit, err);
}

struct err *qcow_snapshot_create(struct host_file *file, const char *name, uint64_t date_ns)
{
    struct qcow_edit edit;
    struct qcow_snapshot_table table = {.list = NULL};
    struct qcow_edit_l1 l1 = {.entries = NULL};
    struct draft draft = {.data = NULL};
    CLEANUP(cleanup_free) char *copy = strdup(name);
    char id[ID_BYTES_MAX];
    struct qcow_snapshot added = {.id = id,
                                  .name = copy,
                                  .date_s = (uint32_t)(date_ns / NANOSECONDS_PER_SECOND),
                                  .date_ns = (uint32_t)(date_ns % NANOSECONDS_PER_SECOND)};

    if (copy == NULL)
        return err_new(ERR_NO_MEMORY, "snapshot");
    struct err *err = begin(file, &edit, &table);
    if (err == NULL)
        err = qcow_edit_end(&edit, create(&edit, &table, &added, &l1, &draft));
    qcow_snapshot_table_finish(&table);
    qcow_edit_l1_finish(&l1);
    free(draft.data);
    return err_wrap(err, "take snapshot '%s' of '%s'", name, file->path);
}

/* The snapshot's L1 table, as long as its disk needs at least. */
static struct err *load_longer(const struct qcow_edit *edit, const struct qcow_snapshot *snapshot,
                               struct qcow_edit_l1 *out_l1)
{
    const struct qcow_header *header = &edit->check.header;
    uint64_t reach = (uint64_t)1 << qcow_header_l1_reach_bits(header);
    uint64_t wanted = MAX(divide_up(snapshot->disk_bytes, reach), (uint64_t)snapshot->l1_entries);

    if (snapshot->disk_bytes > DISK_BYTES_MAX || wanted * 8 > QCOW_L1_BYTES_MAX)
        return err_new(ERR_INVALID, "a disk of %" PRIu64 " bytes is not possible",
                       snapshot->disk_bytes);
    TRY(qcow_edit_l1_load(edit, snapshot->l1_offset, snapshot->l1_entries, out_l1));
    uint64_t *entries = realloc(out_l1->entries, wanted * 8 + 8);
    if (entries == NULL)
        return err_new(ERR_NO_MEMORY, "L1 table");
    memset(entries + out_l1->count, 0, (wanted - out_l1->count) * 8);
    out_l1->entries = entries;
    out_l1->count = (uint32_t)wanted;
    return NULL;
}

static struct err *apply(struct qcow_edit *edit, const struct qcow_snapshot_table *table,
                         const char *id_or_name, struct qcow_edit_l1 *l1)
{
    const struct qcow_snapshot *snapshot = NULL;
    uint64_t offset;

    TRY(qcow_snapshot_find(table, id_or_name, &snapshot));
    TRY(load_longer(edit, snapshot, l1));
    TRY(qcow_edit_refer_tree(edit, l1));
    TRY(qcow_edit_take(edit, (uint64_t)l1->count * 8, QCOW_OWNER_L1, &offset));
    TRY(qcow_edit_raise(edit));
    TRY(qcow_edit_l1_share(edit, l1));
    TRY(qcow_edit_l1_write(edit, l1, offset));
    return qcow_edit_publish_disk(edit, snapshot->disk_bytes, l1->count, offset);
}

static struct err *go_back(struct host_file *file, const char *id_or_name)
{
    struct qcow_edit edit;
    struct qcow_snapshot_table table = {.list = NULL};
    struct qcow_edit_l1 l1 = {.entries = NULL};
    struct err *err = begin(file, &edit, &table);

    if (err == NULL)
        err = qcow_edit_end(&edit, apply(&edit, &table, id_or_name, &l1));
    qcow_snapshot_table_finish(&table);
    qcow_edit_l1_finish(&l1);
    return err;
}

static struct err *disk_bytes_of(struct host_file *file, const char *id_or_name,
                                 uint64_t *out_bytes)
{
    struct qcow_snapshot_table table = {.list = NULL};
    const struct qcow_snapshot *snapshot = NULL;

    TRY(qcow_snapshot_list(file, &table));
    struct err *err = qcow_snapshot_find(&table, id_or_name, &snapshot);
    if (err == NULL)
        *out_bytes = snapshot->disk_bytes;
    qcow_snapshot_table_finish(&table);
    return err;
}

/* Bitmaps do not know what this changes, so they say afterwards that everything has changed. */
static struct err *go_back_with_bitmaps(struct host_file *file, const char *id_or_name)
{
    struct qcow_bitmap_set set = {.list = NULL};
    uint64_t bytes;

    TRY(disk_bytes_of(file, id_or_name, &bytes));
    TRY(qcow_bitmap_set_take_out(file, bytes, &set));
    struct err *err = go_back(file, id_or_name);
    struct err *put_err = qcow_bitmap_set_put_back(file, &set, 0);
    qcow_bitmap_set_finish(&set);
    if (err == NULL)
        return put_err;
    err_free(put_err);
    return err;
}

struct err *qcow_snapshot_apply(struct host_file *file, const char *id_or_name)
{
    struct qcow_header header;
    struct err *err = qcow_header_read(file, &header);

    if (err == NULL)
        err = qcow_header_has_bitmaps(&header) ? go_back_with_bitmaps(file, id_or_name)
                                               : go_back(file, id_or_name);
    return err_wrap(err, "go back to snapshot '%s' of '%s'", id_or_name, file->path);
}

static struct err *build_without(struct qcow_edit *edit, struct qcow_snapshot_table *table,
                                 uint32_t index, struct draft *draft)
{
    struct qcow_snapshot removed = table->list[index];
    uint32_t behind = --table->count - index;

    memmove(&table->list[index], &table->list[index + 1], behind * sizeof(*table->list));
    struct err *err = place_table(edit, table, draft);
    table->list[table->count++] = removed; /* still to be freed */
    return err;
}

static struct err *forget(struct qcow_edit *edit, struct qcow_snapshot_table *table,
                          const char *id_or_name, struct draft *draft)
{
    const struct qcow_snapshot *snapshot = NULL;

    TRY(qcow_snapshot_find(table, id_or_name, &snapshot));
    TRY(build_without(edit, table, (uint32_t)(snapshot - table->list), draft));
    TRY(qcow_edit_raise(edit));
    return publish_table(edit, draft);
}

struct err *qcow_snapshot_delete(struct host_file *file, const char *id_or_name)
{
    struct qcow_edit edit;
    struct qcow_snapshot_table table = {.list = NULL};
    struct draft draft = {.data = NULL};
    struct err *err = begin(file, &edit, &table);

    if (err == NULL)
        err = qcow_edit_end(&edit, forget(&edit, &table, id_or_name, &draft));
    qcow_snapshot_table_finish(&table);
    free(draft.data);
    return err_wrap(err, "delete snapshot '%s' of '%s'", id_or_name, file->path);
}
