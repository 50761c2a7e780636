/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_bench.c - does a disk of many layers cost more than one of few?
 *
 *     layer_bench FOLDER
 *
 * Makes chains over a full raw base of 1 GiB, each layer with some writes all over it, and prints
 * how long opening, a cold first read and warm random reads of 4 KiB take at each depth, and how
 * long the switch of a disk to its next layer takes. What would change a decision: reads at depth
 * 100 more than 10 % slower than at depth 1, an open of more than 20 ms, a switch of more than 2
 * ms.
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
#define ROUNDS       7

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

static double print_line(const char *name, unsigned depth, const char *unit, double *values,
                         unsigned count)
{
    qsort(values, count, sizeof(values[0]), by_value);
    printf("%-24s depth %3u  %-5s p50 %9.2f  min %9.2f  max %9.2f  n %u\n", name, depth, unit,
           values[count / 2], values[0], values[count - 1], count);
    return values[count / 2];
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

/* The disk goes on in its next overlay. */
static void add_layer(struct block **disk, char **path, const char **format)
{
    char *overlay = NULL;

    stop_on(disk_image_next_overlay(*path, &overlay));
    stop_on(disk_image_create_overlay(overlay, *path, *format, DISK_BYTES));
    stop_on(disk_image_switch(disk, *path, *format, overlay));
    free(*path);
    *path = overlay;
    *format = "qcow2";
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

/* Opens the chain anew; gives the median of a warm read. */
static double measure(const char *path, unsigned depth)
{
    double open_ms[ROUNDS], first_us[ROUNDS], read_ns[ROUNDS];
    static uint8_t data[4096];
    struct iovec iov = {data, sizeof(data)};

    for (unsigned i = 0; i < ROUNDS; i++) {
        struct block *disk = NULL;
        uint64_t start = clock_monotonic_ns();
        stop_on(disk_image_open(path, depth == 0 ? "raw" : "qcow2", DISK_IMAGE_WRITABLE, &disk));
        uint64_t opened = clock_monotonic_ns();
        stop_on(block_read(disk, &iov, 1, random_offset()));
        uint64_t first = clock_monotonic_ns();
        open_ms[i] = (double)(opened - start) / 1e6;
        first_us[i] = (double)(first - opened) / 1e3;
        (void)read_warm(disk);
        read_ns[i] = read_warm(disk);
        stop_on(block_close(disk));
    }
    (void)print_line("open", depth, "ms", open_ms, ROUNDS);
    (void)print_line("first read of a region", depth, "us", first_us, ROUNDS);
    return print_line("random read of 4 KiB", depth, "ns", read_ns, ROUNDS);
}

static void measure_depths(char *path)
{
    struct block *disk = NULL;
    const char *format = "raw";
    double at_depth_1 = 0;
    unsigned depth = 0;

    for (size_t i = 0; i < ARRAY_COUNT(depths); i++) {
        stop_on(disk_image_open(path, format, DISK_IMAGE_WRITABLE, &disk));
        for (; depth < depths[i]; depth++) {
            add_layer(&disk, &path, &format);
            write_some(disk);
        }
        stop_on(block_close(disk));
        double read_ns = measure(path, depth);
        at_depth_1 = i == 0 ? read_ns : at_depth_1;
        printf("%-24s depth %3u  ratio %9.3f\n", "random read, to depth 1", depth,
               read_ns / at_depth_1);
    }
    free(path);
}

int main(int argc, char **argv)
{
    char *path = NULL;

    if (argc != 2 || asprintf(&path, "%s/bench.img", argv[1]) < 0) {
        (void)fprintf(stderr, "usage: layer_bench FOLDER\n");
        return 2;
    }
    srandom(1);
    make_base(path);
    measure_depths(path);
    return 0;
}
