/* SPDX-License-Identifier: Apache-2.0 */
/*
 * restore_command.c - see restore_command.h. Tested by: tests/system.
 */
#include "tools/vm-restore/restore_command.h"

#include <stdio.h>

#include "base/cancel.h"
#include "base/cleanup.h"
#include "control/runtime_folder.h"
#include "snapshot/catalog.h"
#include "snapshot/restore.h"
#include "tools/program_json.h"
#include "tools/vm-restore/restore_report.h"

struct err *restore_command_run(const struct restore_options *options, const char *snapshot)
{
    CLEANUP(cleanup_snapshot_store) struct snapshot_store *store = NULL;
    CLEANUP(cleanup_free) char *folder = NULL;
    struct snapshot_name name;
    struct restore_result result;

    if (options->name != NULL)
        TRY(machine_name_check(options->name));
    if (options->store == NULL)
        TRY(state_folder("snapshots", &folder));
    TRY(catalog_open(snapshot, options->store == NULL ? folder : options->store, &store, &name));
    cancel_listen();
    TRY(snapshot_restore(store, &name,
                         (struct restore_settings){
                             .name = options->name,
                             .is_paused = options->paused,
                             .is_verified = options->verify,
                             .program = "vm-restore",
                             .image_folders = options->image_folders.values,
                             .image_folder_count = options->image_folders.count,
                             .overlay_folder = options->overlay_folder,
                             .taps = options->taps.values,
                             .tap_count = options->taps.count,
                         },
                         &result));
    if (options->json)
        program_json_print(restore_report_json(&result));
    else
        restore_report_print(&result, stdout);
    restore_result_finish(&result);
    return NULL;
}
