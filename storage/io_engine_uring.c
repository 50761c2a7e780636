/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io_engine_uring.c - an engine that gives planned requests to the kernel through an io_uring.
 *
 * How it works. The ring is the owner's alone (SINGLE_ISSUER), and the kernel does the rest of the
 * work for completions when the owner enters it, not at times of its own (DEFER_TASKRUN).
 *
 *     submit   plan -> begin writes -> one entry for each extent with a file -> in flight
 *                 \__ it would have to wait, somewhere ------------------------> pool
 *              a few are prepared  -> submitted, so that the disk works meanwhile
 *     wait     enter the ring: submits what was prepared, waits for the first completion
 *              part completed as a whole -> the last one finishes the plan -> done
 *              part completed otherwise  -> once all parts have ended: plan dropped -> pool
 *
 * So there is one way for everything unusual (short transfers, the end of a file, EAGAIN, errors):
 * the blocking call does the whole request again and says in words what is wrong. Barriers are not
 * linked to anything: a flush is a blocking call in the pool.
 *
 * The wake eventfd and the pool's are read through the ring, so that there is one place to wait.
 * Neither files nor guest memory are registered: docs/decisions/0005-disk-engine.md says why.
 * Tested by: io_engine_test.c
 */
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/checked_math.h"
#include "base/clock.h"
#include "storage/host_file.h"
#include "storage/io_engine_internal.h"
#include "storage/io_vector.h"

#define POOL_THREADS 4u
#define ENTRIES_MIN  64u

/* The disk gets so many at once while more are being planned: with all of a round submitted at its
 * end it would stand idle meanwhile. Each submission is a system call, so not one by one. */
#define SUBMIT_BATCH 4u

struct uring_engine {
    struct io_engine base;
    struct io_uring ring;
    bool has_ring;
    bool is_disabled; /* until its owner has attached */
    int wake_fd;
    uint64_t wake_count; /* what reads of the eventfds give */
    uint64_t pool_count;
    struct io_list done;
};

static struct uring_engine *self_of(struct io_engine *engine)
{
    return CONTAINER_OF(engine, struct uring_engine, base);
}

/* There is room again once those that are prepared have been submitted. */
static struct io_uring_sqe *entry(struct uring_engine *self)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&self->ring);

    while (sqe == NULL) {
        (void)io_uring_submit(&self->ring);
        sqe = io_uring_get_sqe(&self->ring);
    }
    return sqe;
}

static void read_event(struct uring_engine *self, int fd, uint64_t *count)
{
    struct io_uring_sqe *sqe = entry(self);

    io_uring_prep_read(sqe, fd, count, sizeof(*count), 0);
    io_uring_sqe_set_data(sqe, count);
}

static struct err *uring_attach(struct io_engine *engine)
{
    struct uring_engine *self = self_of(engine);

    /* io_uring_enable_rings is missing from liburing.so.2 of version 2.3. */
    if (self->is_disabled && syscall(SYS_io_uring_register, self->ring.ring_fd,
                                     IORING_REGISTER_ENABLE_RINGS, NULL, 0) != 0)
        return err_errno(errno, "enable the io_uring of a disk");
    read_event(self, self->wake_fd, &self->wake_count);
    read_event(self, io_pool_done_fd(self->base.pool), &self->pool_count);
    return NULL;
}

/* Cuts the request's vectors at the ends of its extents. */
static void set_parts(struct io_request *request)
{
    struct block_plan *plan = &request->plan;
    struct iovec *out = request->split;
    uint64_t skip = 0;
    int at = 0;

    for (unsigned i = 0; i < plan->count; i++) {
        struct io_part *part = &request->parts[i];
        uint64_t left = plan->extents[i].bytes;
        part->request = request;
        part->iovs = out;
        while (left > 0) {
            const struct iovec *iov = &request->iovs[at];
            size_t len = (size_t)MIN(iov->iov_len - skip, left);
            if (len > 0)
                *out++ = (struct iovec){(uint8_t *)iov->iov_base + skip, len};
            skip += len;
            left -= len;
            if (skip == iov->iov_len) {
                at++;
                skip = 0;
            }
        }
        part->iov_count = (int)(out - part->iovs);
    }
}

static bool are_aligned(const struct io_request *request)
{
    for (unsigned i = 0; i < request->plan.count; i++) {
        const struct block_extent *extent = &request->plan.extents[i];
        const struct io_part *part = &request->parts[i];
        if (extent->file == NULL)
            continue;
        const struct host_file_door *door = extent->file->door;
        if (door == NULL ||
            !host_file_is_aligned(door->alignment, part->iovs, part->iov_count, extent->offset))
            return false;
    }
    return true;
}

static void end_writes(struct io_request *request, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        host_file_end_write(request->plan.extents[i].file, &request->parts[i].range);
}

static bool begin_writes(struct io_request *request)
{
    for (unsigned i = 0; i < request->plan.count; i++) {
        const struct block_extent *extent = &request->plan.extents[i];
        request->parts[i].range =
            (struct write_range){.first = extent->offset, .end = extent->offset + extent->bytes};
        if (!host_file_begin_write(extent->file, &request->parts[i].range)) {
            end_writes(request, i);
            return false;
        }
    }
    return true;
}

static void start_part(struct uring_engine *self, struct io_part *part,
                       const struct block_extent *extent)
{
    if (extent->file == NULL) {
        io_vector_zero(part->iovs, part->iov_count);
        return;
    }

    struct io_uring_sqe *sqe = entry(self);
    int fd = extent->file->door->fd;
    if (part->request->operation == IO_READ)
        io_uring_prep_readv(sqe, fd, part->iovs, (unsigned)part->iov_count, extent->offset);
    else
        io_uring_prep_writev(sqe, fd, part->iovs, (unsigned)part->iov_count, extent->offset);
    io_uring_sqe_set_data(sqe, part);
    part->request->parts_left++;
}

/* False: nothing has happened. */
static bool start_planned(struct uring_engine *self, struct io_request *request)
{
    bool is_write = request->operation == IO_WRITE;

    if ((request->operation != IO_READ && !is_write) || request->len == 0 ||
        !block_plan(request->block, is_write ? BLOCK_REQUEST_CHANGE : BLOCK_REQUEST_READ,
                    request->offset, request->len, &request->plan))
        return false;
    set_parts(request);
    if (!are_aligned(request) || (is_write && !begin_writes(request))) {
        block_plan_finish(&request->plan, BLOCK_NOT_TRANSFERRED);
        return false;
    }
    request->parts_left = 0;
    request->must_repeat = false;
    for (unsigned i = 0; i < request->plan.count; i++)
        start_part(self, &request->parts[i], &request->plan.extents[i]);
    return true;
}

static void end_request(struct uring_engine *self, struct io_request *request)
{
    if (request->operation == IO_WRITE)
        end_writes(request, request->plan.count);
    block_plan_finish(&request->plan,
                      request->must_repeat ? BLOCK_NOT_TRANSFERRED : BLOCK_TRANSFERRED);
    if (request->must_repeat)
        io_pool_submit(self->base.pool, request);
    else
        io_list_put(&self->done, request);
}

static void uring_submit(struct io_engine *engine, struct io_request *request)
{
    struct uring_engine *self = self_of(engine);

    request->err = NULL;
    if (!start_planned(self, request))
        io_pool_submit(self->base.pool, request);
    else if (request->parts_left == 0)
        end_request(self, request);
    else if (io_uring_sq_ready(&self->ring) >= SUBMIT_BATCH)
        (void)io_uring_submit(&self->ring); /* what fails now is submitted when waiting */
}

static void uring_recall(struct io_engine *engine, struct io_list *recalled)
{
    io_pool_recall(engine->pool, recalled);
}

static void end_part(struct uring_engine *self, struct io_part *part, int result)
{
    struct io_request *request = part->request;
    const struct block_extent *extent = &request->plan.extents[part - request->parts];

    if (result < 0 || (uint64_t)result != extent->bytes)
        request->must_repeat = true;
    if (--request->parts_left == 0)
        end_request(self, request);
}

static void handle(struct uring_engine *self, const struct io_uring_cqe *cqe)
{
    void *data = io_uring_cqe_get_data(cqe);

    if (data == &self->wake_count) {
        read_event(self, self->wake_fd, &self->wake_count);
    } else if (data == &self->pool_count) {
        read_event(self, io_pool_done_fd(self->base.pool), &self->pool_count);
        io_pool_take_done(self->base.pool, &self->done);
    } else {
        end_part(self, data, cqe->res);
    }
}

/* Bounded by the size of the completion ring. */
static void reap(struct uring_engine *self)
{
    struct io_uring_cqe *cqe;
    unsigned head, count = 0;

    io_uring_for_each_cqe(&self->ring, head, cqe)
    {
        handle(self, cqe);
        count++;
    }
    io_uring_cq_advance(&self->ring, count);
}

static void uring_wait(struct io_engine *engine, uint64_t deadline_ns, struct io_list *done)
{
    struct uring_engine *self = self_of(engine);
    uint64_t now = deadline_ns == UINT64_MAX ? 0 : clock_monotonic_ns();
    uint64_t ns = deadline_ns > now ? MIN(deadline_ns - now, 3600 * NS_PER_S) : 0;
    struct __kernel_timespec timeout = {.tv_sec = (long long)(ns / NS_PER_S),
                                        .tv_nsec = (long long)(ns % NS_PER_S)};
    struct io_uring_cqe *cqe;

    /* An error of a call is a deadline, a signal, or a ring that is full and is emptied here. */
    if (self->done.first == NULL && ns > 0)
        (void)io_uring_submit_and_wait_timeout(&self->ring, &cqe, 1, &timeout, NULL);
    else
        (void)io_uring_submit_and_get_events(&self->ring);
    reap(self);
    io_list_append(done, &self->done);
}

static void uring_destroy(struct io_engine *engine)
{
    struct uring_engine *self = self_of(engine);

    if (self->has_ring)
        io_uring_queue_exit(&self->ring);
    io_pool_leave(self->base.pool);
    free(self);
}

static const struct io_engine_ops uring_engine_ops = {
    .name = "uring",
    .attach = uring_attach,
    .submit = uring_submit,
    .recall = uring_recall,
    .wait = uring_wait,
    .destroy = uring_destroy,
};

/* Older kernels do not know the flags; the ring works without them. */
static int make_ring(struct uring_engine *self, unsigned depth)
{
    unsigned entries = MAX(depth, ENTRIES_MIN);
    struct io_uring_params params = {.flags = IORING_SETUP_SINGLE_ISSUER |
                                              IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_R_DISABLED};
    int result = io_uring_queue_init_params(entries, &self->ring, &params);

    self->is_disabled = result >= 0;
    if (result == -EINVAL) {
        params = (struct io_uring_params){.flags = 0};
        result = io_uring_queue_init_params(entries, &self->ring, &params);
    }
    self->has_ring = result >= 0;
    return result;
}

struct err *io_engine_uring_create(const struct io_engine_options *options,
                                   struct io_engine **out_engine)
{
    struct uring_engine *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return err_new(ERR_NO_MEMORY, "io_uring of a disk");

    self->base.ops = &uring_engine_ops;
    self->wake_fd = options->wake_fd;
    int result = make_ring(self, options->depth);
    struct err *err =
        result < 0 ? err_new(ERR_STATE, "io_uring of a disk: %s", strerror(-result)) : NULL;
    if (err == NULL)
        err = io_engine_enter_pool(&self->base, options, POOL_THREADS);
    if (err != NULL) {
        uring_destroy(&self->base);
        return err;
    }
    *out_engine = &self->base;
    return NULL;
}
