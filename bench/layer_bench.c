/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_bench.c - does a disk of many layers cost more than one of few?
 *
 *     layer_bench FOLDER
 *
 * Makes chains over a full raw base of 1 GiB, each layer with some writes all over it, and prints
 * how long opening, a cold first read and warm random reads of 4 KiB take at each depth, and how
 * long the switch of a disk to its next layer takes (prepared before, as in a pause). What would
 * change a decision: reads at depth 100 more than 10 % slower than at depth 1, an open of more than
 * 20 ms, a switch of more than 2 ms.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked_math.h"
#include "base/clock.h"
#include "base/limits.h"
#include "storage/disk_image.h"

#define DISK_BYTES   (1 * GIB)
#define LAYER_WRITES 64
#define READS        100000
#define ROUNDS       9

static const unsigned depths[] = {1, 32, 100};

static void stop_on(struct err *err)
{
    if (err == NULL)
        return;
    (void)fprintf(stderr, "layer_bench: %s\n", err_message(err));
    exit(1);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double print_line(const char *name, unsigned depth, const char *unit, double *values)
{
    qsort(values, ROUNDS, sizeof(values[0]), by_value);
    printf("%-24s depth %3u  %-5s p50 %9.2f  min %9.2f  max %9.2f  n %u\n", name, depth, unit,
           values[ROUNDS / 2], values[0], values[ROUNDS - 1], ROUNDS);
    return values[ROUNDS / 2];
}

static void make_base(const char *path)
{
    static uint8_t chunk[MIB];
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    memset(chunk, 0x5a, sizeof(chunk));
    for (uint64_t at = 0; fd >= 0 && at < DISK_BYTES; at += sizeof(chunk))
        if (pwrite(fd, chunk, sizeof(chunk), (off_t)at) != (ssize_t)sizeof(chunk))
            stop_on(err_new(ERR_IO, "write '%s'", path));
    if (fd < 0 || close(fd) != 0)
        stop_on(err_new(ERR_IO, "make '%s'", path));
}

static uint64_t random_offset(void)
{
    return (uint64_t)random() % (DISK_BYTES / 4096) * 4096;
}

static void write_some(struct block *disk)
{
    static uint8_t data[4096];
    struct iovec iov = {data, sizeof(data)};

    memset(data, (int)random(), sizeof(data));
    for (int i = 0; i < LAYER_WRITES; i++)
        stop_on(block_write(disk, &iov, 1, random_offset()));
}

struct chain {
    unsigned depth;
    char *path; /* of the newest layer */
    double open_ms[ROUNDS];
    double first_us[ROUNDS];
    double read_ns[ROUNDS];
    double switch_ms[ROUNDS];
};

/* The disk goes on in its next overlay; gives how long the switch took. */
static double add_layer(struct chain *chain, struct block **disk)
{
    char *overlay = NULL;

    stop_on(disk_image_next_overlay(chain->path, &overlay));
    stop_on(disk_image_create_overlay(overlay, chain->path, "qcow2", DISK_BYTES));
    stop_on(disk_image_prepare(*disk, overlay));
    stop_on(block_flush(*disk)); /* as the machine does before the pause */
    uint64_t start = clock_monotonic_ns();
    stop_on(disk_image_switch(disk, chain->path, "qcow2", overlay));
    uint64_t end = clock_monotonic_ns();
    free(chain->path);
    chain->path = overlay;
    return (double)(end - start) / 1e6;
}

static void make_chain(struct chain *chain, const char *folder, const char *base, unsigned depth)
{
    struct block *disk = NULL;

    chain->depth = depth;
    if (asprintf(&chain->path, "%s/deep%u.000001.qcow2", folder, depth) < 0)
        stop_on(err_new(ERR_NO_MEMORY, "chain"));
    stop_on(disk_image_create_overlay(chain->path, base, "raw", DISK_BYTES));
    stop_on(disk_image_open(chain->path, "qcow2", DISK_IMAGE_WRITABLE, &disk));
    write_some(disk);
    for (unsigned i = 1; i < depth; i++) {
        chain->switch_ms[i % ROUNDS] = add_layer(chain, &disk);
        write_some(disk);
    }
    stop_on(block_close(disk));
}

static double read_warm(struct block *disk)
{
    static uint8_t data[4096];
    struct iovec iov = {data, sizeof(data)};
    uint64_t start = clock_monotonic_ns();

    for (int i = 0; i < READS; i++)
        stop_on(block_read(disk, &iov, 1, random_offset()));
    return (double)(clock_monotonic_ns() - start) / READS;
}

static void measure(struct chain *chain, unsigned round)
{
    static uint8_t data[4096];
    struct iovec iov = {data, sizeof(data)};
    struct block *disk = NULL;

    uint64_t start = clock_monotonic_ns();
    stop_on(disk_image_open(chain->path, "qcow2", DISK_IMAGE_WRITABLE, &disk));
    uint64_t opened = clock_monotonic_ns();
    stop_on(block_read(disk, &iov, 1, random_offset()));
    uint64_t first = clock_monotonic_ns();
    chain->open_ms[round] = (double)(opened - start) / 1e6;
    chain->first_us[round] = (double)(first - opened) / 1e3;
    (void)read_warm(disk);
    chain->read_ns[round] = read_warm(disk);
    stop_on(block_close(disk));
}

int main(int argc, char **argv)
{
    static struct chain chains[ARRAY_COUNT(depths)];
    double read_ns[ARRAY_COUNT(depths)];
    char *base = NULL;

    if (argc != 2 || asprintf(&base, "%s/bench.img", argv[1]) < 0) {
        (void)fprintf(stderr, "usage: layer_bench FOLDER\n");
        return 2;
    }
    srandom(1);
    make_base(base);
    for (size_t i = 0; i < ARRAY_COUNT(depths); i++)
        make_chain(&chains[i], argv[1], base, depths[i]);
    /* In turn, so that what else the host does is in all of them. */
    for (unsigned round = 0; round < ROUNDS; round++)
        for (size_t i = 0; i < ARRAY_COUNT(depths); i++)
            measure(&chains[i], round);
    for (size_t i = 0; i < ARRAY_COUNT(depths); i++) {
        struct chain *chain = &chains[i];
        (void)print_line("open", chain->depth, "ms", chain->open_ms);
        (void)print_line("first read of a region", chain->depth, "us", chain->first_us);
        read_ns[i] = print_line("random read of 4 KiB", chain->depth, "ns", chain->read_ns);
        printf("%-24s depth %3u  ratio %9.3f\n", "random read, to depth 1", chain->depth,
               read_ns[i] / read_ns[0]);
        if (chain->depth > ROUNDS)
            (void)print_line("switch, after a flush", chain->depth, "ms", chain->switch_ms);
        free(chain->path);
    }
    free(base);
    return 0;
}
