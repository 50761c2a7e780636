/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memcheck.c - writes a pattern through memory, round after round, and verifies what it left.
 *
 *     page:   0 ........... at ............... last
 *     holds:  round n       | round n - 1
 *
 * At any instant every page is of one of two rounds, with a single step that moves. Before a page
 * is rewritten all its words must still be those of the round before: a page that a save or a
 * move lost, tore, doubled or brought back from an earlier moment counts as an error.
 *
 * Tested by: the lab scenarios.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "tests/lab/guest/check.h"
#include "tests/lab/guest/check_status.h"
#include "tests/lab/guest/pacer.h"
#include "tests/lab/guest/pattern.h"

enum { TICKS_PER_SECOND = 20 };

int memcheck_main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: memcheck MIB PAGES_PER_SECOND\n");
        return 2;
    }
    uint64_t pages = strtoull(argv[1], NULL, 10) * (1 << 20) / PATTERN_BYTES;
    uint64_t pages_per_tick = strtoull(argv[2], NULL, 10) / TICKS_PER_SECOND;
    uint64_t *memory = mmap(NULL, pages * PATTERN_BYTES, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || pages == 0) {
        perror("memcheck: memory");
        return 1;
    }
    struct check_status status = check_status_of("memcheck");
    int pacer = pacer_open(1000000 / TICKS_PER_SECOND);
    uint64_t round = 1, at = 0, errors = 0, wrong_page = 0;
    for (;;) {
        for (uint64_t step = 0; step <= pages_per_tick; step++) {
            uint64_t *page = memory + at * PATTERN_WORDS;
            if (round > 1 && !pattern_matches(page, round - 1, at)) {
                errors++;
                wrong_page = at;
            }
            pattern_fill(page, round, at);
            at = (at + 1) % pages;
            round += at == 0;
        }
        check_status_write(&status,
                           "errors=%" PRIu64 " rounds=%" PRIu64 " at=%" PRIu64 " pages=%" PRIu64
                           " wrong_page=%" PRIu64,
                           errors, round, at, pages, wrong_page);
        pacer_wait(pacer);
    }
}
