/* SPDX-License-Identifier: Apache-2.0 */
/*
 * planned_request.c - see planned_request.h.
 * Tested by: qcow_power_cut_test.c, qcow_error_sweep_test.c
 */
#include "storage/testing/planned_request.h"

#include <string.h>

#include "storage/block.h"
#include "storage/host_file.h"

static struct err *read_extents(const struct block_plan *plan, uint8_t *data)
{
    for (unsigned i = 0; i < plan->count; i++) {
        const struct block_extent *extent = &plan->extents[i];
        if (extent->file == NULL)
            memset(data, 0, (size_t)extent->bytes);
        else
            TRY(host_file_read_bytes(extent->file, data, (size_t)extent->bytes, extent->offset));
        data += extent->bytes;
    }
    return NULL;
}

static struct err *write_extents(const struct block_plan *plan, const uint8_t *data)
{
    for (unsigned i = 0; i < plan->count; i++) {
        const struct block_extent *extent = &plan->extents[i];
        TRY(host_file_write_bytes(extent->file, data, (size_t)extent->bytes, extent->offset));
        data += extent->bytes;
    }
    return NULL;
}

struct err *planned_read(struct block *disk, void *out_data, size_t len, uint64_t offset,
                         bool *out_was_planned)
{
    struct block_plan plan;
    struct iovec iov = {out_data, len};
    bool was_planned = block_plan(disk, BLOCK_REQUEST_READ, offset, len, &plan);

    if (out_was_planned != NULL)
        *out_was_planned = was_planned;
    if (!was_planned)
        return block_read(disk, &iov, 1, offset);
    struct err *err = read_extents(&plan, out_data);
    block_plan_finish(&plan, err == NULL ? BLOCK_TRANSFERRED : BLOCK_NOT_TRANSFERRED);
    return err;
}

struct err *planned_write(struct block *disk, const void *data, size_t len, uint64_t offset,
                          bool *out_was_planned)
{
    struct block_plan plan;
    struct iovec iov = {(void *)(uintptr_t)data, len};
    bool was_planned = block_plan(disk, BLOCK_REQUEST_CHANGE, offset, len, &plan);

    if (out_was_planned != NULL)
        *out_was_planned = was_planned;
    if (!was_planned)
        return block_write(disk, &iov, 1, offset);
    struct err *err = write_extents(&plan, data);
    block_plan_finish(&plan, err == NULL ? BLOCK_TRANSFERRED : BLOCK_NOT_TRANSFERRED);
    return err;
}
