/* SPDX-License-Identifier: Apache-2.0 */
/*
 * restore_report.c - see restore_report.h. Tested by: tests/system, which reads what it prints.
 */
#include "tools/vm-restore/restore_report.h"

#include "snapshot/restore.h"
#include "tools/program_json.h"

void restore_report_print(const struct restore_result *result, FILE *out)
{
    const Ferry__SnapshotManifest *manifest = result->manifest;
    const Ferry__MachineConfig *config = manifest->description->config;

    (void)fprintf(out, "restored %s from %s/%s\n", config->name, manifest->machine, manifest->id);
    (void)fprintf(out, "  process %d, log %s\n", (int)result->pid, result->log_path);
    for (size_t i = 0; i < config->n_disks; i++)
        (void)fprintf(out, "  disk %s: %s\n", config->disks[i]->id, config->disks[i]->path);
    if (result->first_run_us != 0)
        (void)fprintf(out, "  first instruction after %.1f ms", (double)result->first_run_us / 1e3);
    else
        (void)fprintf(out, "  paused after %.1f ms", (double)result->total_us / 1e3);
    for (size_t i = 0; i < result->timings.count; i++)
        (void)fprintf(out, "%s%s %.1f", i == 0 ? " (" : ", ", result->timings.rows[i].phase,
                      (double)result->timings.rows[i].us / 1e3);
    (void)fprintf(out, ")\n");
}

json_t *restore_report_json(const struct restore_result *result)
{
    const Ferry__SnapshotManifest *manifest = result->manifest;
    const Ferry__MachineConfig *config = manifest->description->config;
    json_t *timings = json_object();
    json_t *disks = json_array();

    for (size_t i = 0; i < result->timings.count; i++)
        json_object_set_new(timings, result->timings.rows[i].phase,
                            json_integer((json_int_t)result->timings.rows[i].us));
    for (size_t i = 0; i < config->n_disks; i++)
        json_array_append_new(disks, json_pack("{s:s, s:o}", "id", config->disks[i]->id, "path",
                                               program_json_text(config->disks[i]->path)));
    return json_pack("{s:s, s:s, s:s, s:i, s:o, s:I, s:I, s:o, s:o}", "name", config->name,
                     "machine", manifest->machine, "id", manifest->id, "pid", (int)result->pid,
                     "log", program_json_text(result->log_path == NULL ? "" : result->log_path),
                     "first_run_us", (json_int_t)result->first_run_us, "total_us",
                     (json_int_t)result->total_us, "phases_us", timings, "disks", disks);
}
