/* SPDX-License-Identifier: Apache-2.0 */
/*
 * save_report.c - see save_report.h. Tested by: tests/system, which reads what it prints.
 */
#include "tools/vm-save/save_report.h"

#include <inttypes.h>

#include "base/checked_math.h"
#include "base/limits.h"
#include "snapshot/disk_layers.h"
#include "snapshot/take.h"
#include "tools/program_json.h"

static double mib(uint64_t bytes)
{
    return (double)bytes / (double)MIB;
}

void save_report_print(const struct take_result *result, const struct disk_layers_result *layers,
                       FILE *out)
{
    const Ferry__SnapshotManifest *manifest = result->manifest;
    const Ferry__SnapshotCounters *counters = manifest->counters;
    const Ferry__ControlFrozenDisks *disks = result->disks->disks;

    (void)fprintf(out, "saved %s/%s\n", manifest->machine, manifest->id);
    if (manifest->parent[0] == '\0')
        (void)fprintf(out, "  full: %.1f MiB", mib(counters->bytes));
    else
        (void)fprintf(out, "  changes since %s: %.1f MiB", manifest->parent, mib(counters->bytes));
    (void)fprintf(out, " for %.0f MiB of memory, in %.2f s\n", mib(counters->pages * PAGE_BYTES),
                  (double)result->total_us / 1e6);
    (void)fprintf(
        out, "  pause %.2f ms, with %" PRIu64 " pages copied in it and %" PRIu64 " rounds before\n",
        (double)counters->pause_us / 1e3, counters->residual_pages, counters->rounds);
    for (size_t i = 0; i < disks->n_disks; i++)
        if (!disks->disks[i]->read_only)
            (void)fprintf(out, "  disk %s continues in %s\n", disks->disks[i]->id,
                          disks->disks[i]->active_path);
    if (layers->merged != 0)
        (void)fprintf(out, "  disks have %u layers less: %.1f MiB of them were merged\n",
                      layers->merged, mib(layers->copied_bytes));
    if (layers->removed != 0)
        (void)fprintf(out, "  %u files of them, %.1f MiB, were needed by nothing and are removed\n",
                      layers->removed, mib(layers->removed_bytes));
    if (!result->is_tracked)
        (void)fprintf(out,
                      "  the machine does not know this snapshot: the next one will be full\n");
}

static json_t *disks_json(const Ferry__ControlFrozenDisks *disks)
{
    json_t *list = json_array();

    for (size_t i = 0; i < disks->n_disks; i++)
        json_array_append_new(list,
                              json_pack("{s:s, s:o, s:o, s:b}", "id", disks->disks[i]->id, "sealed",
                                        program_json_text(disks->disks[i]->frozen_path), "active",
                                        program_json_text(disks->disks[i]->active_path),
                                        "read_only", (int)disks->disks[i]->read_only));
    return list;
}

json_t *save_report_json(const struct take_result *result, const struct disk_layers_result *layers)
{
    const Ferry__SnapshotManifest *manifest = result->manifest;
    const Ferry__SnapshotCounters *counters = manifest->counters;
    json_t *object = json_pack("{s:s, s:s, s:s, s:b, s:o}", "machine", manifest->machine, "id",
                               manifest->id, "parent", manifest->parent, "tracked",
                               (int)result->is_tracked, "disks", disks_json(result->disks->disks));
    json_t *phases = json_object();
    const struct {
        const char *key;
        uint64_t value;
    } numbers[] = {
        {"pages", counters->pages},           {"pages_written", counters->pages_written},
        {"pages_zero", counters->pages_zero}, {"bytes", counters->bytes},
        {"pause_us", counters->pause_us},     {"residual_pages", counters->residual_pages},
        {"rounds", counters->rounds},         {"total_us", result->total_us},
        {"layers_merged", layers->merged},    {"merged_bytes", layers->copied_bytes},
        {"layers_removed", layers->removed},  {"removed_bytes", layers->removed_bytes},
    };

    for (size_t i = 0; i < result->timings.count; i++)
        json_object_set_new(phases, result->timings.rows[i].phase,
                            json_integer((json_int_t)result->timings.rows[i].us));
    json_object_set_new(object, "phases_us", phases);
    json_object_set_new(object, "snapshot", json_sprintf("%s/%s", manifest->machine, manifest->id));
    for (size_t i = 0; i < ARRAY_COUNT(numbers); i++)
        json_object_set_new(object, numbers[i].key, json_integer((json_int_t)numbers[i].value));
    return object;
}
