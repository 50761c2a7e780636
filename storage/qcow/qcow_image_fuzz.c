/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_image_fuzz.c - operations on a whole hostile image: check, repair, snapshots inside it, and
 * then reads and writes of what is left.
 *
 * Under libFuzzer inputs are changed by image_mutate, which knows where it hurts.
 * Tested by: replaying tests/fuzz/corpus/qcow_image, and by qcow_hostile_test.c
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/checked_math.h"
#include "base/log.h"
#include "storage/block.h"
#include "storage/host_file.h"
#include "storage/qcow/qcow_check.h"
#include "storage/qcow/qcow_image.h"
#include "storage/qcow/qcow_repair.h"
#include "storage/qcow/qcow_snapshot.h"
#include "storage/testing/host_file_fake.h"
#include "storage/testing/image_mutator.h"
#include "storage/testing/qcow_checker.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);

struct bytes {
    void *data; /* owned */
    size_t len;
};

/* Takes a step on the file that the last one left, which goes on in *inout_bytes. */
static struct host_file *open_bytes(struct bytes *inout_bytes)
{
    struct host_file *file = NULL;
    void *before = inout_bytes->data;
    struct err *err = host_file_fake_create(before, inout_bytes->len, &file);

    ASSERT(err == NULL);
    host_file_fake_keep(file, &inout_bytes->data, &inout_bytes->len);
    free(before);
    return file;
}

static void use(struct bytes *bytes)
{
    static uint8_t data[1536];
    struct iovec iov = {data, sizeof(data)};
    struct block *disk = NULL;
    struct err *err = qcow_image_open(open_bytes(bytes), false, &disk);

    for (unsigned i = 0; err == NULL && i < 4; i++) {
        uint64_t offset = align_down(disk->virtual_bytes / 4 * i, 512);
        err_free(block_write(disk, &iov, 1, offset));
        err_free(block_read(disk, &iov, 1, offset));
        err_free(block_discard(disk, offset, MIN((uint64_t)4096, disk->virtual_bytes - offset)));
    }
    if (err == NULL)
        err = block_close(disk);
    err_free(err);
}

static struct err *take_and_go_back(struct host_file *file)
{
    TRY(qcow_snapshot_create(file, "fuzz", 1));
    TRY(qcow_snapshot_apply(file, "fuzz"));
    return qcow_snapshot_delete(file, "1");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bytes bytes = {malloc(size + 1), size};
    struct qcow_repair_report report = {.after = {.errors = 1}};

    log_set_level(LOG_ERROR);
    ASSERT(bytes.data != NULL);
    if (size > 0)
        memcpy(bytes.data, data, size);
    use(&bytes);
    struct host_file *file = open_bytes(&bytes);
    struct err *err = take_and_go_back(file);
    host_file_destroy(file);
    err_free(err);
    file = open_bytes(&bytes);
    err = qcow_repair(file, QCOW_REPAIR_ALL, NULL, &report);
    host_file_destroy(file);
    if (err == NULL && report.after.errors == 0)
        ASSERT(qcow_checker_run(bytes.data, bytes.len).errors == 0);
    err_free(err);
    use(&bytes);
    free(bytes.data);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    struct chance chance = chance_of(seed);

    (void)max_size;
    for (uint64_t i = 0; i <= chance_below(&chance, 4); i++)
        image_mutate(&chance, data, &size);
    return size;
}
