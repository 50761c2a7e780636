/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guest.h - the payload's parts. Freestanding: no library, ring 3, identity-mapped memory.
 *
 * Jobs are stepped in turn by the CPU that the command line gives them to, e.g.
 * "cpu0=pattern,fpu cpu1=clock mb=64 rate=20000". A step takes well under a millisecond, so that
 * jobs of one CPU do not hide each other's gaps. Each job reports one line of key=value fields.
 */
#ifndef TESTS_GUESTS_GUEST_H
#define TESTS_GUESTS_GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct job {
    const char *name;
    void (*start)(void); /* on the boot CPU, before any step */
    void (*step)(void);
    void (*report)(void); /* prints fields after "name " and before the line's end */
};

extern const struct job pattern_job, fpu_job, clock_job, dirty_job, disk_job, disk1_job, timer_job;

/* console.c: the first serial port. A line is composed first, then sent under a lock. */
void print_text(const char *text);
void print_number(const char *key, uint64_t value); /* " key=value" */
void print_end(void);                               /* sends the line */

/* options.c: the command line. */
uint64_t option_number(const char *key, uint64_t value_default);
bool option_has_word(const char *key, const char *word); /* key=a,b,c holds word */

/* time.c: nanoseconds since boot by the kvmclock page, as Linux reads it. */
uint64_t time_ns(unsigned cpu);

/* options.c: RAM that jobs may use, in order of asking, from the parts below and above 4 GiB; false
 * when there is none left. */
bool ram_take(uint64_t bytes, uint64_t *out_address);
void ram_start(void);

extern uint64_t timer_ticks[2];
extern volatile uint32_t cpu_is_up[2];
extern uint64_t start_info;
void start_second_cpu(void);

static inline void port_write8(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint8_t port_read8(uint16_t port)
{
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline void port_write32(uint16_t port, uint32_t value)
{
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint32_t port_read32(uint16_t port)
{
    uint32_t value;
    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline uint64_t read_tsc(void)
{
    uint32_t low, high;
    __asm__ volatile("lfence; rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

/* Sleeps until the next interrupt, at most one timer tick. */
static inline void wait_for_interrupt(void)
{
    __asm__ volatile("hlt" ::: "memory");
}

#endif
