/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_limits.c - see disk_limits.h. Tested by: machine_fake_test.c
 */
#include "control/disk_limits.h"

#include <string.h>

#include "base/limits.h"

static struct err *check_rate(const char *disk, const char *what, const Ferry__ControlRate *rate)
{
    if (rate == NULL || rate->per_second <= DISK_RATE_MAX)
        return NULL;
    return err_new(ERR_INVALID, "limit disk '%.64s': %llu %s a second; the most is %llu", disk,
                   (unsigned long long)rate->per_second, what, (unsigned long long)DISK_RATE_MAX);
}

static struct err *find(const Ferry__MachineConfig *config, const char *id, size_t *out_disk)
{
    for (size_t i = 0; i < config->n_disks; i++) {
        if (strcmp(config->disks[i]->id, id) == 0) {
            *out_disk = i;
            return NULL;
        }
    }
    return err_new(ERR_NOT_FOUND, "the machine has no disk '%.64s'", id);
}

struct err *disk_limits_apply(const Ferry__ControlLimitDisk *call, Ferry__MachineConfig *config,
                              size_t *out_disk)
{
    size_t index;

    TRY(find(config, call->disk, &index));
    TRY(check_rate(call->disk, "requests", call->requests));
    TRY(check_rate(call->disk, "bytes", call->bytes));
    if (call->requests == NULL && call->bytes == NULL)
        return err_new(ERR_INVALID, "limit disk '%.64s': no limit is named", call->disk);
    if (call->requests != NULL)
        config->disks[index]->requests_per_second = call->requests->per_second;
    if (call->bytes != NULL)
        config->disks[index]->bytes_per_second = call->bytes->per_second;
    *out_disk = index;
    return NULL;
}
