/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine_limits.c - what a guest may ask of its disks, changed while it runs.
 *
 * The limits stand in the machine's description, which says for a snapshot and for another host
 * what the machine is. Who has been told it holds the limits until the connection closes: a change
 * that came after it would be forgotten on the way. Tested by: tests/system.
 */
#include "base/log.h"
#include "control/disk_limits.h"
#include "vmm/devices/virtio/virtio_blk.h"
#include "vmm/machine/machine_control_internal.h"
#include "vmm/machine/machine_internal.h"

struct err *machine_limit_disk(struct machine *machine, const Ferry__ControlLimitDisk *call)
{
    size_t index;

    TRY(disk_limits_apply(call, machine->description->config, &index));
    const Ferry__DiskConfig *config = machine->disks[index].config;
    struct virtio_blk_rates rates = {config->requests_per_second, config->bytes_per_second};
    virtio_blk_set_rates(machine->disks[index].device, rates);
    log_info("disk limited", "disk='%s' requests_per_second=%llu bytes_per_second=%llu", config->id,
             (unsigned long long)rates.requests_per_second,
             (unsigned long long)rates.bytes_per_second);
    return NULL;
}

static unsigned *find_describer(struct machine_control *control, unsigned connection)
{
    for (size_t i = 0; i < CONTROL_CLIENTS_MAX; i++) {
        if (control->describers[i] == connection)
            return &control->describers[i];
    }
    return NULL;
}

void machine_limits_hold(struct machine_control *control, unsigned connection)
{
    if (find_describer(control, connection) != NULL)
        return;
    unsigned *free_place = find_describer(control, 0); /* there are as many as connections */
    if (free_place != NULL)
        *free_place = connection;
}

void machine_limits_closed(struct machine_control *control, unsigned connection)
{
    unsigned *place = connection == 0 ? NULL : find_describer(control, connection);

    if (place != NULL)
        *place = 0;
}

struct err *machine_call_limit_disk(struct machine_control *control, struct machine_call *call)
{
    if (control->run_state != FERRY__CONTROL_RUN_STATE__RUN_STATE_PAUSED)
        TRY(machine_control_expect(control, FERRY__CONTROL_RUN_STATE__RUN_STATE_RUNNING,
                                   "limit disk"));
    for (size_t i = 0; i < CONTROL_CLIENTS_MAX; i++) {
        if (control->describers[i] != 0 && control->describers[i] != call->connection)
            return err_new(ERR_STATE,
                           "limit disk '%.64s': the machine is being saved or moved; "
                           "try again afterwards",
                           call->request->limit_disk->disk);
    }
    return machine_limit_disk(control->machine, call->request->limit_disk);
}
