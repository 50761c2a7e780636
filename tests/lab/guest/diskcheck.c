/* SPDX-License-Identifier: Apache-2.0 */
/*
 * diskcheck.c - writes stamped blocks to a disk, flushes each, and verifies them by reading back.
 *
 * What was written where is remembered in memory, so a machine whose memory and disk were not cut
 * at the same instant, or whose flushed write was lost, shows as an error. Reads and writes go
 * past the guest's page cache.
 *
 * Tested by: the lab scenarios.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/lab/guest/check.h"
#include "tests/lab/guest/check_status.h"
#include "tests/lab/guest/pacer.h"
#include "tests/lab/guest/pattern.h"

enum { BLOCK_COUNT = 2048 };

struct disk {
    int fd;
    uint64_t *buffer;                  /* one block, aligned for O_DIRECT */
    uint64_t generations[BLOCK_COUNT]; /* what each block holds; 0 before its first write */
    uint64_t errors;
};

static bool block_write(struct disk *disk, uint64_t block, uint64_t generation)
{
    off_t offset = (off_t)(block * PATTERN_BYTES);

    pattern_fill(disk->buffer, generation, block);
    if (pwrite(disk->fd, disk->buffer, PATTERN_BYTES, offset) != PATTERN_BYTES ||
        fdatasync(disk->fd) != 0)
        return false;
    disk->generations[block] = generation;
    return true;
}

static bool block_verify(struct disk *disk, uint64_t block)
{
    off_t offset = (off_t)(block * PATTERN_BYTES);

    if (disk->generations[block] == 0)
        return true;
    return pread(disk->fd, disk->buffer, PATTERN_BYTES, offset) == PATTERN_BYTES &&
           pattern_matches(disk->buffer, disk->generations[block], block);
}

int diskcheck_main(int argc, char **argv)
{
    static struct disk disk;

    if (argc != 3) {
        fprintf(stderr, "usage: diskcheck DEVICE WRITES_PER_SECOND\n");
        return 2;
    }
    disk.fd = open(argv[1], O_RDWR | O_DIRECT | O_CLOEXEC);
    disk.buffer = aligned_alloc(PATTERN_BYTES, PATTERN_BYTES);
    if (disk.fd < 0 || disk.buffer == NULL) {
        perror("diskcheck: open");
        return 1;
    }
    struct check_status status = check_status_of("diskcheck");
    struct check_gap gap = {0};
    int pacer = pacer_open(1000000 / strtoull(argv[2], NULL, 10));
    for (uint64_t generation = 1;; generation++) {
        /* A step that is coprime to the count visits every block, far apart in the image. */
        uint64_t block = generation * 389 % BLOCK_COUNT;
        uint64_t earlier = generation * generation * 7 % BLOCK_COUNT;
        bool good = block_write(&disk, block, generation);
        good = block_verify(&disk, block) && good;
        good = block_verify(&disk, earlier) && good;
        disk.errors += !good;
        check_gap_event(&gap, check_now_ns());
        check_status_write(&status, "errors=%" PRIu64 " writes=%" PRIu64 " gap_ms=%.1f",
                           disk.errors, generation, check_gap_ms(&gap, check_now_ns()));
        pacer_wait(pacer);
    }
}
