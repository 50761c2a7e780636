/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_history.c - see disk_history.h.
 * Tested by: qcow_power_cut_test.c, and tests/crash/qemu_cut_test.py, where it finds faults.
 */
#include "storage/testing/disk_history.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "storage/testing/qcow_checker.h"
#include "storage/testing/sector_stamp.h"

#define NOT_YET SIZE_MAX

static uint64_t *copy_of(const uint64_t *sectors, size_t count)
{
    uint64_t *copy = calloc(count + 1, sizeof(*copy));

    ASSERT(copy != NULL);
    if (sectors != NULL)
        memcpy(copy, sectors, count * sizeof(*copy));
    return copy;
}

static struct disk_step *add_step(struct disk_history *history, struct disk_step step)
{
    struct disk_step *steps =
        realloc(history->steps, (history->step_count + 1) * sizeof(*history->steps));

    ASSERT(steps != NULL);
    history->steps = steps;
    steps[history->step_count] = step;
    return &steps[history->step_count++];
}

void disk_history_init(struct disk_history *history, size_t sector_count, uint64_t *below)
{
    *history = (struct disk_history){.sector_count = sector_count, .below = below};
    (void)add_step(history,
                   (struct disk_step){.sectors = copy_of(below, sector_count), .is_flush = true});
}

void disk_history_finish(struct disk_history *history)
{
    for (size_t i = 0; i < history->step_count; i++)
        free(history->steps[i].sectors);
    for (size_t i = 0; i < history->snapshot_count; i++)
        free(history->snapshots[i].sectors);
    free(history->steps);
    free(history->snapshots);
    free(history->below);
    *history = (struct disk_history){.sector_count = 0};
}

const uint64_t *disk_history_now(const struct disk_history *history)
{
    return history->steps[history->step_count - 1].sectors;
}

struct disk_step *disk_history_begin(struct disk_history *history, size_t record_count)
{
    return add_step(history,
                    (struct disk_step){
                        .sectors = copy_of(disk_history_now(history), history->sector_count),
                        .first_record = record_count,
                        .end_record = NOT_YET,
                    });
}

void disk_history_end(struct disk_history *history, size_t record_count)
{
    history->steps[history->step_count - 1].end_record = record_count;
}

struct disk_snapshot *disk_history_snapshot(struct disk_history *history, const char *name)
{
    struct disk_snapshot *snapshots =
        realloc(history->snapshots, (history->snapshot_count + 1) * sizeof(*history->snapshots));

    ASSERT(snapshots != NULL);
    history->snapshots = snapshots;
    struct disk_snapshot *snapshot = &snapshots[history->snapshot_count++];
    *snapshot = (struct disk_snapshot){
        .sectors = copy_of(disk_history_now(history), history->sector_count),
        .create_first = history->steps[history->step_count - 1].first_record,
        .create_end = NOT_YET,
        .delete_first = NOT_YET,
        .delete_end = NOT_YET,
    };
    (void)snprintf(snapshot->name, sizeof(snapshot->name), "%s", name);
    return snapshot;
}

struct disk_snapshot *disk_history_find(struct disk_history *history, const char *name)
{
    for (size_t i = 0; i < history->snapshot_count; i++)
        if (strcmp(history->snapshots[i].name, name) == 0 &&
            history->snapshots[i].delete_first == NOT_YET)
            return &history->snapshots[i];
    return NULL;
}

/* One stamp for each sector; UINT64_MAX for what can not be read. */
static void read_stamps(const struct disk_history *history, const struct qcow_view *view,
                        uint64_t *out_stamps)
{
    size_t count = history->sector_count;
    uint8_t *data = malloc(count * SECTOR_BYTES + 1);
    enum qcow_sector *kinds = calloc(count + 1, sizeof(*kinds));

    ASSERT(data != NULL && kinds != NULL);
    qcow_view_read(view, 0, count, data, kinds);
    for (size_t i = 0; i < count; i++) {
        out_stamps[i] = kinds[i] == QCOW_SECTOR_DATA     ? stamp_of(data + i * SECTOR_BYTES)
                        : kinds[i] == QCOW_SECTOR_BROKEN ? UINT64_MAX
                                                         : 0;
        if (kinds[i] == QCOW_SECTOR_BELOW && history->below != NULL)
            out_stamps[i] = history->below[i];
    }
    free(data);
    free(kinds);
}

static bool allows_sectors(const struct disk_history *history, const uint64_t *stamps, size_t cut,
                           char *out_trouble, size_t trouble_size)
{
    size_t flush = 0, last = 0;

    for (size_t i = 1; i < history->step_count; i++) {
        if (history->steps[i].is_flush && history->steps[i].end_record <= cut)
            flush = i;
        if (history->steps[i].first_record <= cut)
            last = i;
    }
    for (size_t sector = 0; sector < history->sector_count; sector++) {
        bool is_allowed = false;
        for (size_t i = flush; i <= last && !is_allowed; i++)
            is_allowed = history->steps[i].sectors[sector] == stamps[sector];
        if (is_allowed)
            continue;
        (void)snprintf(out_trouble, trouble_size, "sector %zu holds 0x%llx, at the flush 0x%llx",
                       sector, (unsigned long long)stamps[sector],
                       (unsigned long long)history->steps[flush].sectors[sector]);
        return false;
    }
    return true;
}

/* Several snapshots may have had one name, one after the other. */
static bool allows_snapshot(const struct disk_history *history, const char *name,
                            const uint64_t *stamps, size_t cut)
{
    for (size_t i = 0; i < history->snapshot_count; i++) {
        const struct disk_snapshot *snapshot = &history->snapshots[i];
        if (strcmp(snapshot->name, name) == 0 && snapshot->create_first <= cut &&
            memcmp(snapshot->sectors, stamps, history->sector_count * sizeof(*stamps)) == 0)
            return true;
    }
    return false;
}

static bool is_in_table(const uint8_t *image, size_t len, const char *name)
{
    struct qcow_view view;

    for (uint32_t i = 0; qcow_checker_snapshot_view(image, len, i, &view); i++)
        if (strcmp(view.name, name) == 0)
            return true;
    return false;
}

static bool allows_snapshots(const struct disk_history *history, const struct qcow_view *image,
                             uint64_t *stamps, size_t cut, char *out_trouble, size_t trouble_size)
{
    struct qcow_view view;

    for (uint32_t i = 0; qcow_checker_snapshot_view(image->image, image->len, i, &view); i++) {
        read_stamps(history, &view, stamps);
        if (!allows_snapshot(history, view.name, stamps, cut)) {
            (void)snprintf(out_trouble, trouble_size, "snapshot '%s' has changed", view.name);
            return false;
        }
    }
    for (size_t i = 0; i < history->snapshot_count; i++) {
        const struct disk_snapshot *snapshot = &history->snapshots[i];
        if (snapshot->create_end > cut || snapshot->delete_first <= cut ||
            is_in_table(image->image, image->len, snapshot->name))
            continue;
        (void)snprintf(out_trouble, trouble_size, "snapshot '%s' is lost", snapshot->name);
        return false;
    }
    return true;
}

bool disk_history_allows(const struct disk_history *history, const uint8_t *image, size_t len,
                         size_t cut, char *out_trouble, size_t trouble_size)
{
    struct qcow_view view;

    if (!qcow_checker_view(image, len, &view)) {
        (void)snprintf(out_trouble, trouble_size, "the header is broken");
        return false;
    }
    uint64_t *stamps = copy_of(NULL, history->sector_count);
    read_stamps(history, &view, stamps);
    bool is_allowed = allows_sectors(history, stamps, cut, out_trouble, trouble_size) &&
                      allows_snapshots(history, &view, stamps, cut, out_trouble, trouble_size);
    free(stamps);
    return is_allowed;
}
