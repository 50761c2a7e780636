/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cut_states.c - see cut_states.h.
 * Tested by: qcow_power_cut_test.c, and tests/crash/qemu_cut_test.py, where it finds faults.
 */
#include "storage/testing/cut_states.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "storage/testing/qcow_checker.h"
#include "storage/testing/sector_stamp.h"

/* A file under construction; bytes behind `len` are zeros. */
struct file_state {
    uint8_t *bytes; /* owned */
    size_t len;
    size_t capacity;
};

/* Which clusters hold tables, before or after what is subset. */
struct tables {
    uint8_t *before, *after; /* owned; NULL when there is no sound image */
    size_t before_count, after_count;
    unsigned cluster_bits;
};

static const struct subset_kind {
    const char *name;
    unsigned tables, data; /* chance in percent that a sector arrives */
    int one;               /* of one record picked at random; -1: as the others */
} kinds[] = {
    {"a half", 50, 50, -1},        {"one only", 0, 0, 100},        {"all but one", 100, 100, 0},
    {"tables only", 100, 0, -1},   {"data only", 0, 100, -1},      {"one torn", 100, 100, 50},
    {"nearly all", 95, 95, -1},    {"half the tables", 50, 0, -1}, {"hardly any", 5, 5, -1},
    {"one and half", 50, 50, 100}, {"torn tables", 50, 100, -1},   {"torn data", 100, 50, -1},
};

static void grow(struct file_state *state, size_t len)
{
    if (len > state->capacity) {
        size_t capacity = len * 2;
        uint8_t *bytes = realloc(state->bytes, capacity);
        ASSERT(bytes != NULL);
        memset(bytes + state->capacity, 0, capacity - state->capacity);
        state->bytes = bytes;
        state->capacity = capacity;
    }
    state->len = MAX(state->len, len);
}

static void set_size(struct file_state *state, size_t len)
{
    if (state->bytes != NULL && state->len > len)
        memset(state->bytes + len, 0, state->len - len);
    state->len = MIN(state->len, len);
    grow(state, len);
}

static void copy(struct file_state *state, const uint8_t *bytes, size_t len)
{
    set_size(state, len);
    if (len > 0 && state->bytes != NULL)
        memcpy(state->bytes, bytes, len);
}

static void apply_part(struct file_state *state, const struct record *record, uint64_t done,
                       uint64_t part)
{
    uint64_t at = record->offset + done;

    if (record->kind == RECORD_WRITE) {
        grow(state, (size_t)(at + part));
        ASSERT(state->bytes != NULL);
        memcpy(state->bytes + at, record->data + done, (size_t)part);
    } else if (at < state->len) {
        memset(state->bytes + at, 0, (size_t)MIN(part, state->len - at));
    }
}

static void apply_all(struct file_state *state, const struct record *record)
{
    if (record->kind == RECORD_TRUNCATE)
        set_size(state, (size_t)record->offset);
    else if (record->kind != RECORD_SYNC)
        apply_part(state, record, 0, record->len);
}

static bool is_table(const struct tables *tables, uint64_t offset)
{
    uint64_t cluster = offset >> tables->cluster_bits;

    return (tables->before != NULL && cluster < tables->before_count &&
            tables->before[cluster] != 0) ||
           (tables->after != NULL && cluster < tables->after_count && tables->after[cluster] != 0);
}

/* Applies what of a record a cut lets through, sector by sector. */
static void apply_some(struct file_state *state, const struct record *record,
                       const struct tables *tables, const struct subset_kind *kind,
                       struct chance *chance)
{
    if (record->kind == RECORD_SYNC)
        return;
    if (record->kind == RECORD_TRUNCATE) {
        if (chance_below(chance, 100) < kind->tables)
            set_size(state, (size_t)record->offset);
        return;
    }
    for (uint64_t done = 0, part; done < record->len; done += part) {
        uint64_t at = record->offset + done;
        part = MIN(record->len - done, SECTOR_BYTES - at % SECTOR_BYTES);
        if (chance_below(chance, 100) < (is_table(tables, at) ? kind->tables : kind->data))
            apply_part(state, record, done, part);
    }
}

static void judge_state(struct cut_judge *judge, const struct file_state *state, size_t cut,
                        const char *which)
{
    judge->judge(judge, &(struct cut_state){state->bytes, state->len, cut, which});
}

/* Subsets of the records from `first` to some cut before `end`. */
static void visit_subsets(const struct cut_source *source, const struct file_state *durable,
                          const struct file_state *all, size_t first, size_t end,
                          struct cut_judge *judge)
{
    struct file_state state = {.len = 0};
    struct tables tables = {.cluster_bits = 16};

    if (end == first)
        return; /* nothing to lose */
    tables.before = qcow_checker_metadata(durable->bytes, durable->len, &tables.before_count,
                                          &tables.cluster_bits);
    tables.after =
        qcow_checker_metadata(all->bytes, all->len, &tables.after_count, &tables.cluster_bits);
    for (unsigned i = 0; i < source->subsets; i++) {
        const struct subset_kind *kind = &kinds[chance_below(source->chance, ARRAY_COUNT(kinds))];
        size_t cut = i % 2 == 0 ? end : first + chance_below(source->chance, end - first) + 1;
        size_t one = first + chance_below(source->chance, cut - first);
        copy(&state, durable->bytes, durable->len);
        for (size_t j = first; j < cut; j++) {
            struct subset_kind chosen = *kind;
            if (j == one && kind->one >= 0)
                chosen.tables = chosen.data = (unsigned)kind->one;
            apply_some(&state, &source->log->records[j], &tables, &chosen, source->chance);
        }
        judge_state(judge, &state, cut, kind->name);
    }
    free(tables.before);
    free(tables.after);
    free(state.bytes);
}

void cut_states_visit(const struct cut_source *source, struct cut_judge *judge)
{
    struct file_state durable = {.len = 0}, prefix = {.len = 0};
    size_t first = 0;

    copy(&durable, source->start, source->start_len);
    copy(&prefix, source->start, source->start_len);
    judge_state(judge, &prefix, 0, "prefix");
    for (size_t i = 0; i < source->log->count; i++) {
        bool is_barrier = source->log->records[i].kind == RECORD_SYNC;
        apply_all(&prefix, &source->log->records[i]);
        if (!is_barrier)
            judge_state(judge, &prefix, i + 1, "prefix");
        if (is_barrier || i + 1 == source->log->count) {
            visit_subsets(source, &durable, &prefix, first, is_barrier ? i : i + 1, judge);
            copy(&durable, prefix.bytes, prefix.len);
            first = i + 1;
        }
    }
    free(durable.bytes);
    free(prefix.bytes);
}
