/* SPDX-License-Identifier: Apache-2.0 */
/*
 * console.c - lines to the first serial port.
 */
#include "tests/guests/guest.h"

#define PORT      0x3f8
#define LINE_SIZE 512

/* One line under construction for each CPU, told apart by the stack that the caller runs on. */
static char lines[2][LINE_SIZE];
static unsigned used[2];
static volatile uint8_t is_locked;

extern char user_stacks[];

static unsigned this_cpu(void)
{
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    uintptr_t stacks = (uintptr_t)user_stacks;

    return here >= stacks + 0x10000 && here < stacks + 0x20000 ? 1 : 0;
}

void print_text(const char *text)
{
    unsigned cpu = this_cpu();

    while (*text != 0 && used[cpu] < LINE_SIZE - 1)
        lines[cpu][used[cpu]++] = *text++;
}

void print_number(const char *key, uint64_t value)
{
    char digits[21];
    unsigned at = 20;

    digits[at] = 0;
    do {
        digits[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    print_text(" ");
    print_text(key);
    print_text("=");
    print_text(digits + at);
}

static void send(char byte)
{
    while ((port_read8(PORT + 5) & 0x20) == 0)
        ;
    port_write8(PORT, (uint8_t)byte);
}

void print_end(void)
{
    unsigned cpu = this_cpu();

    while (__atomic_exchange_n(&is_locked, 1, __ATOMIC_ACQUIRE) != 0)
        __builtin_ia32_pause();
    for (unsigned i = 0; i < used[cpu]; i++)
        send(lines[cpu][i]);
    if (used[cpu] != 0)
        send('\n');
    used[cpu] = 0;
    __atomic_store_n(&is_locked, 0, __ATOMIC_RELEASE);
}
