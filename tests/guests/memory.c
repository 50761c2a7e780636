/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory.c - two jobs on RAM: a pattern that shows every torn, lost or stale page, and a dirtier
 * with a set rate and working set.
 *
 * The pattern: all pages carry stamp s, but those before the edge carry s+1 already. The edge moves
 * one page at a time, and each page is checked whole before it is overwritten.
 */
#include "tests/guests/guest.h"

#define PAGE_WORDS     512
#define PAGES_PER_STEP 16

static struct {
    uint64_t base, pages, edge, stamp, bad, first_bad_page;
} pattern;

static uint64_t word_of(uint64_t stamp, uint64_t page, unsigned word)
{
    return (stamp * 0x9e3779b97f4a7c15u) ^ (page << 20) ^ word;
}

static void pattern_start(void)
{
    pattern.pages = option_number("mb", 16) << 8;
    pattern.stamp = 1;
    while (pattern.pages != 0 && !ram_take(pattern.pages << 12, &pattern.base))
        pattern.pages /= 2;
    for (uint64_t page = 0; page < pattern.pages; page++) {
        uint64_t *words = (uint64_t *)(pattern.base + (page << 12));
        for (unsigned i = 0; i < PAGE_WORDS; i++)
            words[i] = word_of(1, page, i);
    }
}

static void pattern_step(void)
{
    for (unsigned n = 0; n < PAGES_PER_STEP && pattern.pages != 0; n++) {
        uint64_t *words = (uint64_t *)(pattern.base + (pattern.edge << 12));
        bool is_bad = false;
        for (unsigned i = 0; i < PAGE_WORDS; i++) {
            is_bad |= words[i] != word_of(pattern.stamp, pattern.edge, i);
            words[i] = word_of(pattern.stamp + 1, pattern.edge, i);
        }
        if (is_bad && pattern.bad++ == 0)
            pattern.first_bad_page = pattern.edge;
        if (++pattern.edge == pattern.pages) {
            pattern.edge = 0;
            pattern.stamp++;
        }
    }
}

static void pattern_report(void)
{
    print_number("pages", pattern.pages);
    print_number("pass", pattern.stamp);
    print_number("edge", pattern.edge);
    print_number("bad", pattern.bad);
    if (pattern.bad != 0)
        print_number("first_bad", pattern.first_bad_page);
}

const struct job pattern_job = {"pattern", pattern_start, pattern_step, pattern_report};

/* rate= pages a second over ws= MiB, in order; random=1 fills whole pages with noise at the start
 * so that nothing compresses. */
static struct {
    uint64_t base, pages, at, written, rate, start_ns, noise;
    unsigned cpu;
} dirtier;

static uint64_t next_noise(void)
{
    dirtier.noise ^= dirtier.noise << 13;
    dirtier.noise ^= dirtier.noise >> 7;
    dirtier.noise ^= dirtier.noise << 17;
    return dirtier.noise;
}

static void dirty_start(void)
{
    dirtier.cpu = option_has_word("cpu1", "dirty") ? 1 : 0;
    dirtier.pages = option_number("ws", 16) << 8;
    dirtier.rate = option_number("rate", 1000);
    dirtier.noise = 0x9e3779b97f4a7c15u;

    uint64_t fill_pages = option_number("random", 0) << 8; /* MiB of noise */
    uint64_t fill = 0;
    if (fill_pages < dirtier.pages)
        fill_pages = dirtier.pages;
    while (fill_pages != 0 && !ram_take(fill_pages << 12, &fill))
        fill_pages -= 256;
    dirtier.base = fill;
    if (dirtier.pages > fill_pages)
        dirtier.pages = fill_pages;
    if (option_number("random", 0) != 0)
        for (uint64_t i = 0; i < fill_pages << 9; i++)
            ((uint64_t *)fill)[i] = next_noise();
}

static void dirty_step(void)
{
    uint64_t now_ns = time_ns(dirtier.cpu);

    if (dirtier.start_ns == 0)
        dirtier.start_ns = now_ns;
    /* A long gap is not made up for: the rate is of pages while the guest runs. */
    uint64_t due = (now_ns - dirtier.start_ns) / 1000 * dirtier.rate / 1000000;
    if (due > 4096) {
        dirtier.start_ns = now_ns;
        due = 0;
    }
    if (due < 16 || dirtier.pages == 0)
        return;
    dirtier.start_ns = now_ns;
    for (uint64_t i = 0; i < due; i++) {
        ((uint64_t *)(dirtier.base + (dirtier.at << 12)))[dirtier.written & 511] = next_noise();
        dirtier.at = dirtier.at + 1 == dirtier.pages ? 0 : dirtier.at + 1;
        dirtier.written++;
    }
}

static void dirty_report(void)
{
    print_number("written", dirtier.written);
    print_number("ws_pages", dirtier.pages);
}

const struct job dirty_job = {"dirty", dirty_start, dirty_step, dirty_report};
