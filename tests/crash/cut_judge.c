/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cut_judge.c - counts the faults in the states that a power cut could leave of a recorded image.
 *
 *   cut-judge START LOG STEPS SUBSETS SEED
 *
 * START is the image before, LOG what was then written to it, as QEMU's driver blklogwrites and the
 * kernel's dm-log-writes record it, STEPS what was asked for meanwhile, a line each:
 *
 *   write|zero|flush FIRST-SECTOR SECTORS STAMP LOG-BYTES-BEFORE LOG-BYTES-AFTER
 *   create|apply|delete NAME 0 0 LOG-BYTES-BEFORE LOG-BYTES-AFTER       an internal snapshot
 *
 * Prints one line: states N errors N hazards N content N, and the first of each kind.
 * Tested by: tests/crash/qemu_cut_test.py
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/file_io.h"
#include "base/limits.h"
#include "storage/testing/cut_states.h"
#include "storage/testing/disk_history.h"
#include "storage/testing/qcow_checker.h"
#include "storage/testing/sector_stamp.h"

#define FILE_BYTES_MAX (256 * MIB)
#define LOG_MAGIC      0x6a736677736872u
#define LOG_FLUSH      1u
#define LOG_DISCARD    4u
#define STEP_WORDS     6

/* One kind of fault: how often it was found, and where first. */
struct finding {
    uint64_t count;
    char first[256];
};

struct judge {
    struct cut_judge base;
    struct record_log log;
    size_t *ends; /* owned: where in the log file each record ends */
    struct disk_history history;
    uint64_t states;
    struct finding errors, hazards, content;
};

static void add_record(struct judge *judge, struct record record, size_t end)
{
    size_t count = judge->log.count;
    struct record *records = realloc(judge->log.records, (count + 1) * sizeof(*records));
    size_t *ends = realloc(judge->ends, (count + 1) * sizeof(*ends));

    ASSERT(records != NULL && ends != NULL);
    records[count] = record;
    ends[count] = end;
    judge->log.records = records;
    judge->log.count = count + 1;
    judge->ends = ends;
}

/* One entry, which starts a sector; what was written follows. */
static struct err *read_entry(struct judge *judge, struct reader *in, const uint8_t *start,
                              uint32_t sector_bytes)
{
    uint64_t sector = reader_le64(in), sectors = reader_le64(in), flags = reader_le64(in);
    uint64_t len = sectors * sector_bytes;
    struct record record = {.kind = RECORD_WRITE, .offset = sector * sector_bytes, .len = len};

    reader_skip(in, sector_bytes - 24);
    if (len > FILE_BYTES_MAX || record.offset > FILE_BYTES_MAX)
        return err_new(ERR_INVALID, "an entry of the log is too large");
    if (flags & LOG_DISCARD) {
        record.kind = RECORD_PUNCH;
    } else if (len > 0) {
        const uint8_t *data = reader_take(in, (size_t)len);
        if (data == NULL)
            return err_new(ERR_INVALID, "the log is cut short");
        record.data = malloc((size_t)len);
        ASSERT(record.data != NULL);
        memcpy(record.data, data, (size_t)len);
    }
    if (len > 0)
        add_record(judge, record, (size_t)(in->at - start));
    if (flags & LOG_FLUSH)
        add_record(judge, (struct record){.kind = RECORD_SYNC}, (size_t)(in->at - start));
    return NULL;
}

static struct err *read_log(struct judge *judge, const char *path)
{
    CLEANUP(cleanup_free) void *data = NULL;
    size_t len = 0;

    TRY(file_read_all(path, FILE_BYTES_MAX, &data, &len));
    struct reader in = reader_of(data, len);
    uint64_t magic = reader_le64(&in), version = reader_le64(&in), entries = reader_le64(&in);
    uint32_t sector_bytes = reader_le32(&in);
    if (magic != LOG_MAGIC || version != 1 || sector_bytes < 64 || sector_bytes > 4096)
        return err_new(ERR_INVALID, "'%s' is no log of writes", path);

    reader_skip(&in, sector_bytes - 28);
    for (uint64_t i = 0; i < entries; i++)
        TRY(read_entry(judge, &in, data, sector_bytes));
    return reader_ok(&in) ? NULL : err_new(ERR_INVALID, "'%s' is cut short", path);
}

static size_t records_before(const struct judge *judge, uint64_t log_bytes)
{
    size_t count = 0;

    while (count < judge->log.count && judge->ends[count] <= log_bytes)
        count++;
    return count;
}

/* Snapshots are durable when the command is over, and so is what was written before. */
static struct err *add_snapshot_step(struct judge *judge, char *const words[STEP_WORDS],
                                     struct disk_step *step, size_t end)
{
    struct disk_history *history = &judge->history;

    step->is_flush = true;
    if (strcmp(words[0], "create") == 0) {
        disk_history_snapshot(history, words[1])->create_end = end;
        return NULL;
    }
    struct disk_snapshot *snapshot = disk_history_find(history, words[1]);
    if (snapshot == NULL)
        return err_new(ERR_INVALID, "there is no snapshot '%s'", words[1]);
    if (strcmp(words[0], "apply") == 0) {
        memcpy(step->sectors, snapshot->sectors, history->sector_count * sizeof(*step->sectors));
        return NULL;
    }
    snapshot->delete_first = step->first_record;
    snapshot->delete_end = end;
    return NULL;
}

static struct err *add_step(struct judge *judge, char *const words[STEP_WORDS])
{
    size_t before = records_before(judge, strtoull(words[4], NULL, 10));
    size_t after = records_before(judge, strtoull(words[5], NULL, 10));
    struct disk_step *step = disk_history_begin(&judge->history, before);
    bool is_write = strcmp(words[0], "write") == 0;
    struct err *err = NULL;

    if (is_write || strcmp(words[0], "zero") == 0) {
        uint64_t first = strtoull(words[1], NULL, 10), count = strtoull(words[2], NULL, 10);
        uint64_t stamp = strtoull(words[3], NULL, 10);
        if (!range_is_within(first, count, judge->history.sector_count))
            return err_new(ERR_INVALID, "a step lies outside the disk");
        for (uint64_t i = 0; i < count; i++)
            step->sectors[first + i] = is_write ? stamp + i : 0;
    } else if (strcmp(words[0], "flush") == 0) {
        step->is_flush = true;
    } else {
        err = add_snapshot_step(judge, words, step, after);
    }
    disk_history_end(&judge->history, after);
    return err;
}

static struct err *read_steps(struct judge *judge, const char *path)
{
    CLEANUP(cleanup_free) void *data = NULL;
    size_t len = 0;

    TRY(file_read_all(path, FILE_BYTES_MAX, &data, &len));
    CLEANUP(cleanup_free) char *text = strndup(data, len);
    ASSERT(text != NULL);
    char *rest = text;
    for (char *line = strtok_r(rest, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest)) {
        char *words[STEP_WORDS], *next = line;
        for (int i = 0; i < STEP_WORDS; i++) {
            words[i] = strtok_r(i == 0 ? line : NULL, " ", &next);
            if (words[i] == NULL)
                return err_new(ERR_INVALID, "a step lacks its word %d", i);
        }
        TRY(add_step(judge, words));
    }
    return NULL;
}

static void note(struct finding *finding, const struct cut_state *state, const char *what)
{
    if (finding->count++ == 0)
        (void)snprintf(finding->first, sizeof(finding->first), "after %zu writes, %s: %s",
                       state->cut, state->which, what);
}

static void judge_state(struct cut_judge *base, const struct cut_state *state)
{
    struct judge *judge = CONTAINER_OF(base, struct judge, base);
    struct qcow_verdict verdict = qcow_checker_run(state->bytes, state->len);
    char trouble[128];

    judge->states++;
    if (verdict.errors > 0 && !verdict.is_dirty)
        note(&judge->errors, state, verdict.first);
    if (verdict.hazards > 0)
        note(&judge->hazards, state, verdict.first);
    if (!disk_history_allows(&judge->history, state->bytes, state->len, state->cut, trouble,
                             sizeof(trouble)))
        note(&judge->content, state, trouble);
}

static struct err *run(char **words)
{
    struct judge judge = {.base = {judge_state}};
    CLEANUP(cleanup_free) void *start = NULL;
    struct chance chance = chance_of(strtoull(words[5], NULL, 10));
    struct qcow_view view;
    size_t start_len = 0;

    TRY(file_read_all(words[1], FILE_BYTES_MAX, &start, &start_len));
    if (!qcow_checker_view(start, start_len, &view) || view.virtual_bytes > FILE_BYTES_MAX)
        return err_new(ERR_INVALID, "'%s' is no image to begin with", words[1]);
    TRY(read_log(&judge, words[2]));
    disk_history_init(&judge.history, (size_t)view.virtual_bytes / SECTOR_BYTES, NULL);
    TRY(read_steps(&judge, words[3]));
    cut_states_visit(
        &(struct cut_source){
            .start = start,
            .start_len = start_len,
            .log = &judge.log,
            .subsets = (unsigned)strtoul(words[4], NULL, 10),
            .chance = &chance,
        },
        &judge.base);
    (void)printf("states %llu errors %llu hazards %llu content %llu\n%s\n%s\n%s\n",
                 (unsigned long long)judge.states, (unsigned long long)judge.errors.count,
                 (unsigned long long)judge.hazards.count, (unsigned long long)judge.content.count,
                 judge.errors.first, judge.hazards.first, judge.content.first);
    record_log_finish(&judge.log);
    disk_history_finish(&judge.history);
    free(judge.ends);
    return NULL;
}

int main(int argc, char **argv)
{
    struct err *err = argc == 6 ? run(argv) : err_new(ERR_INVALID, "five words are wanted");

    if (err == NULL)
        return EXIT_SUCCESS;
    (void)fprintf(stderr, "cut-judge: %s\n", err_message(err));
    err_free(err);
    return EXIT_FAILURE;
}
