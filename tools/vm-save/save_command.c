/* SPDX-License-Identifier: Apache-2.0 */
/*
 * save_command.c - see save_command.h. Tested by: tests/system.
 */
#include "tools/vm-save/save_command.h"

#include <stdio.h>

#include "base/cancel.h"
#include "base/cleanup.h"
#include "base/limits.h"
#include "base/log.h"
#include "control/control_client.h"
#include "control/runtime_folder.h"
#include "snapshot/disk_layers.h"
#include "snapshot/store_directory.h"
#include "snapshot/take.h"
#include "tools/program_json.h"
#include "tools/vm-save/save_report.h"

/* The snapshot is there: what goes wrong here is told and is no failure of the save. */
static void shorten_chains(const struct save_options *options, struct control_client *client,
                           const struct take_result *result, struct disk_layers_result *out_layers)
{
    struct err *err = disk_layers_shorten(
        client, result->manifest,
        options->keep_layers ? DISK_LAYERS_KEEP_MERGED : DISK_LAYERS_REMOVE_MERGED, out_layers);

    if (err != NULL)
        log_err(LOG_WARNING, "layers of a disk not merged, or not removed afterwards", err);
}

static struct err *save(const struct save_options *options, struct control_client *client,
                        struct snapshot_store *store)
{
    struct disk_layers_result layers = {0};
    struct take_result result;

    cancel_listen();
    struct err *err = snapshot_take(client, store,
                                    (struct take_settings){
                                        .pause_us_wanted = options->pause_ms * 1000,
                                        .pause_us_max = options->pause_max_ms * 1000,
                                        .staged_bytes_max = options->memory_mib * MIB,
                                        .is_full = options->full,
                                    },
                                    &result);
    cancel_ignore();
    TRY(err);
    if (!options->no_merge)
        shorten_chains(options, client, &result, &layers);
    if (options->json)
        program_json_print(save_report_json(&result, &layers));
    else
        save_report_print(&result, &layers, stdout);
    take_result_finish(&result);
    return NULL;
}

struct err *save_command_run(const struct save_options *options, const char *machine)
{
    CLEANUP(cleanup_snapshot_store) struct snapshot_store *store = NULL;
    CLEANUP(cleanup_free) char *folder = NULL;
    struct control_client *client = NULL;

    if (options->store == NULL)
        TRY(state_folder("snapshots", &folder));
    TRY(store_directory_open(options->store == NULL ? folder : options->store, &store));
    TRY(control_client_connect(machine, "vm-save", &client));
    struct err *err = save(options, client, store);
    control_client_close(client);
    return err;
}
