/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_bench.c - how many requests a second does a disk's engine do?
 *
 *     disk_bench FILE raw|qcow2 read|write uring|threads COUNT
 *
 * Requests of 4 KiB at depth 32, past the page cache, each STRIDE bytes behind the one before: the
 * pattern of
 *
 *     qemu-img bench -f FORMAT -t none -i io_uring -s 4096 -d 32 -S 1118208 -c COUNT [-w] FILE
 *
 * which is to be run in turn with this one on the same file, several times. What would change a
 * decision: qcow2 with all its clusters in place slower than QEMU's, or than 0.9 of raw.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/checked_math.h"
#include "base/clock.h"
#include "storage/disk_image.h"
#include "storage/io_engine.h"

#define DEPTH         32u
#define REQUEST_BYTES ((size_t)4096)
#define STRIDE        ((uint64_t)1118208) /* 273 x 4 KiB */

struct slot {
    struct io_request io;
    struct iovec iov;
};

static void stop_on(struct err *err)
{
    if (err == NULL)
        return;
    (void)fprintf(stderr, "disk_bench: %s\n", err_message(err));
    exit(1);
}

static void submit(struct io_engine *engine, struct slot *slot, uint64_t number)
{
    uint64_t places = slot->io.block->virtual_bytes / REQUEST_BYTES;

    slot->io.offset = number * (STRIDE / REQUEST_BYTES) % places * REQUEST_BYTES;
    io_engine_submit(engine, &slot->io);
}

static void make_slots(struct slot *slots, struct block *disk, enum io_operation operation)
{
    for (unsigned i = 0; i < DEPTH; i++) {
        void *data = NULL;
        if (posix_memalign(&data, 4096, REQUEST_BYTES) != 0)
            stop_on(err_new(ERR_NO_MEMORY, "buffers"));
        memset(data, 0x5a, REQUEST_BYTES);
        slots[i].iov = (struct iovec){data, REQUEST_BYTES};
        slots[i].io.operation = operation;
        slots[i].io.block = disk;
        slots[i].io.iovs = &slots[i].iov;
        slots[i].io.iov_count = 1;
        slots[i].io.len = REQUEST_BYTES;
    }
}

/* The seconds that `count` requests take. */
static double run(struct io_engine *engine, struct slot *slots, uint64_t count)
{
    uint64_t started = clock_monotonic_ns(), submitted = 0, ended = 0;

    while (submitted < MIN(count, (uint64_t)DEPTH)) {
        submit(engine, &slots[submitted], submitted);
        submitted++;
    }
    while (ended < count) {
        struct io_list done = {.first = NULL};
        io_engine_wait(engine, UINT64_MAX, &done);
        for (struct io_request *io = io_list_take(&done); io != NULL; io = io_list_take(&done)) {
            stop_on(io->err);
            ended++;
            if (submitted < count)
                submit(engine, CONTAINER_OF(io, struct slot, io), submitted++);
        }
    }
    return (double)(clock_monotonic_ns() - started) / 1e9;
}

int main(int argc, char **argv)
{
    static struct slot slots[DEPTH];
    struct io_engine *engine = NULL;
    struct block *disk = NULL;

    if (argc != 6) {
        (void)fprintf(stderr, "usage: disk_bench FILE raw|qcow2 read|write uring|threads COUNT\n");
        return 2;
    }
    struct disk_image_name name = {.path = argv[1],
                                   .format = argv[2],
                                   .access = DISK_IMAGE_WRITABLE,
                                   .cache = HOST_FILE_CACHE_NONE};
    struct io_engine_options options = {.kind = strcmp(argv[4], "threads") == 0 ? IO_ENGINE_THREADS
                                                                                : IO_ENGINE_URING,
                                        .depth = DEPTH,
                                        .wake_fd = eventfd(0, EFD_CLOEXEC)};
    uint64_t count = strtoull(argv[5], NULL, 10);
    stop_on(disk_image_open_named(&name, &disk));
    stop_on(io_engine_create(&options, &engine));
    stop_on(io_engine_attach(engine));
    make_slots(slots, disk, strcmp(argv[3], "write") == 0 ? IO_WRITE : IO_READ);

    double seconds = run(engine, slots, count);
    printf("disk_bench %s %s %s  requests_per_second %.0f  seconds %.3f  n %llu\n", argv[2],
           argv[3], argv[4], (double)count / seconds, seconds, (unsigned long long)count);
    io_engine_destroy(engine);
    for (unsigned i = 0; i < DEPTH; i++)
        free(slots[i].iov.iov_base);
    (void)close(options.wake_fd);
    stop_on(block_close(disk));
    return 0;
}
