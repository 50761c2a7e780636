/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_load.c - see bench_load.h. Tested by: tests/disk
 */
#include "tools/vm-disk/bench_load.h"

#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/limits.h"

struct slot {
    struct io_request request;
    struct iovec iov;
};

struct run {
    struct block *block;
    const struct bench_load *load;
    struct io_engine *engine; /* owned */
    struct slot *slots;       /* owned */
    uint8_t *data;            /* owned; a buffer for each slot */
    unsigned *free_slots;     /* owned; a stack */
    unsigned free_count;
    uint64_t offset;
    uint64_t submitted;
    uint64_t flushes;
    uint64_t random;
};

/* xorshift64*: the same offsets in every run. */
static uint64_t next_random(struct run *run)
{
    run->random ^= run->random >> 12;
    run->random ^= run->random << 25;
    run->random ^= run->random >> 27;
    return run->random * 0x2545f4914f6cdd1du;
}

static uint64_t next_offset(struct run *run)
{
    const struct bench_load *load = run->load;
    uint64_t disk = run->block->virtual_bytes, offset = run->offset;

    if (load->is_random)
        return next_random(run) % (disk / load->bytes) * load->bytes;
    run->offset = (offset + load->step) % disk;
    if (!range_is_within(run->offset, load->bytes, disk))
        run->offset = 0;
    return offset;
}

static void submit(struct run *run, enum io_operation operation)
{
    unsigned index = run->free_slots[--run->free_count];
    struct slot *slot = &run->slots[index];
    bool has_data = operation != IO_FLUSH;

    slot->request.operation = operation;
    slot->request.block = run->block;
    slot->request.iovs = has_data ? &slot->iov : NULL;
    slot->request.iov_count = has_data ? 1 : 0;
    slot->request.offset = has_data ? next_offset(run) : 0;
    slot->request.len = has_data ? run->load->bytes : 0;
    slot->request.err = NULL;
    io_engine_submit(run->engine, &slot->request);
}

/* Waits for one request at least. */
static struct err *take_back(struct run *run)
{
    struct io_list done = {.first = NULL};
    struct io_request *request;
    struct err *first = NULL;

    while (done.first == NULL)
        io_engine_wait(run->engine, UINT64_MAX, &done);
    while ((request = io_list_take(&done)) != NULL) {
        struct slot *slot = CONTAINER_OF(request, struct slot, request);
        run->free_slots[run->free_count++] = (unsigned)(slot - run->slots);
        if (first == NULL)
            first = request->err;
        else
            err_free(request->err);
    }
    return first;
}

static struct err *drain(struct run *run)
{
    struct err *first = NULL;

    while (run->free_count < run->load->depth) {
        struct err *err = take_back(run);
        if (first == NULL)
            first = err;
        else
            err_free(err);
    }
    return first;
}

static struct err *flush(struct run *run)
{
    TRY(drain(run));
    submit(run, IO_FLUSH);
    run->flushes++;
    return drain(run);
}

static struct err *submit_all(struct run *run, uint64_t count)
{
    const struct bench_load *load = run->load;

    run->submitted = run->flushes = 0;
    while (run->submitted < count) {
        while (run->free_count > 0 && run->submitted < count) {
            submit(run, load->is_writing ? IO_WRITE : IO_READ);
            run->submitted++;
            if (load->flush_every != 0 && run->submitted % load->flush_every == 0)
                TRY(flush(run));
        }
        if (run->free_count < load->depth) /* a flush may just have ended the last */
            TRY(take_back(run));
    }
    return drain(run);
}

static struct err *prepare(struct run *run, int wake_fd)
{
    const struct bench_load *load = run->load;
    struct io_engine_options options = {
        .kind = load->engine, .depth = load->depth, .wake_fd = wake_fd};

    run->slots = calloc(load->depth, sizeof(*run->slots));
    run->free_slots = calloc(load->depth, sizeof(*run->free_slots));
    run->data = aligned_alloc(PAGE_BYTES, align_up(load->bytes, PAGE_BYTES) * load->depth);
    if (run->slots == NULL || run->free_slots == NULL || run->data == NULL)
        return err_new(ERR_NO_MEMORY, "bench");
    memset(run->data, load->pattern, align_up(load->bytes, PAGE_BYTES) * load->depth);
    for (unsigned i = 0; i < load->depth; i++) {
        run->slots[i].iov =
            (struct iovec){run->data + i * align_up(load->bytes, PAGE_BYTES), (size_t)load->bytes};
        run->free_slots[run->free_count++] = i;
    }
    TRY(io_engine_create(&options, &run->engine));
    return io_engine_attach(run->engine);
}

struct err *bench_load_run(struct block *block, const struct bench_load *load,
                           struct bench_result *out_result)
{
    CLEANUP(cleanup_fd) int wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct run run = {
        .block = block, .load = load, .offset = load->first, .random = 88172645463325252u};

    struct err *err = prepare(&run, wake_fd);
    if (err == NULL)
        err = submit_all(&run, load->warm_up);
    uint64_t started_ns = clock_monotonic_ns();
    if (err == NULL)
        err = submit_all(&run, load->count);
    uint64_t ended_ns = clock_monotonic_ns();
    if (run.engine != NULL)
        err_free(drain(&run));
    if (err == NULL && run.engine != NULL)
        *out_result = (struct bench_result){
            .ns = ended_ns - started_ns, .flushes = run.flushes, .engine = run.engine->ops->name};
    io_engine_destroy(run.engine);
    free(run.slots);
    free(run.free_slots);
    free(run.data);
    return err;
}
