/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guest_fake.c - see guest_fake.h.
 */
#include "control/guest_fake.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/assert.h"
#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/lock.h"
#include "base/thread.h"

#define PAGE_WORDS     (PAGE_BYTES / sizeof(uint64_t))
#define STEP_INITIAL   UINT64_MAX /* in place of a step: content from the start */
#define TICK_NS        NS_PER_MS
#define TICK_STEPS_MAX 256u /* a pause waits for at most this many */
#define RATE_MAX       10000000u

struct guest_fake {
    int memory_fd; /* owned */
    uint8_t *base; /* owned */
    uint64_t page_count;
    void (*mark)(void *context, uint64_t page);
    void *mark_context;
    struct thread *writer; /* owned */

    struct lock lock;
    struct lock_condition changed;
    Ferry__FakeGuestState state GUARDED_BY(&lock);
    bool is_running GUARDED_BY(&lock);
    bool is_ending GUARDED_BY(&lock);
};

DEFINE_CLEANUP(guest, struct guest_fake, guest_fake_destroy)

static uint64_t mix(uint64_t value)
{
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
    return value ^ (value >> 31);
}

/* Odd pages are incompressible, even ones repeat one word. */
static uint64_t page_word(uint64_t seed, uint64_t step, uint64_t page, uint64_t index)
{
    uint64_t start = seed + step * 0x9e3779b97f4a7c15u + page;
    return page % 2 == 0 ? mix(start) : mix(start) + mix(index + 1);
}

static void write_page(uint8_t *at, uint64_t seed, uint64_t step, uint64_t page)
{
    uint64_t words[PAGE_WORDS];
    for (uint64_t i = 0; i < PAGE_WORDS; i++)
        words[i] = page_word(seed, step, page, i);
    memcpy(at, words, sizeof(words));
}

/* Steps that are due after this time at this rate, without overflow for a century. */
static uint64_t steps_due(uint64_t pages_per_second, uint64_t elapsed_ns)
{
    return elapsed_ns / NS_PER_S * pages_per_second +
           elapsed_ns % NS_PER_S * pages_per_second / NS_PER_S;
}

static void write_steps_locked(struct guest_fake *guest, uint64_t steps) REQUIRES(&guest->lock)
{
    for (uint64_t i = 0; i < steps; i++) {
        uint64_t page = guest->state.step % guest->state.working_set_pages;
        write_page(guest->base + page * PAGE_BYTES, guest->state.seed, guest->state.step, page);
        guest->mark(guest->mark_context, page);
        guest->state.step++;
    }
}

/* Goes on from now at the set rate until it is paused; what it falls behind is left out. */
static void run_locked(struct guest_fake *guest) REQUIRES(&guest->lock)
{
    uint64_t start_ns = clock_monotonic_ns();
    uint64_t done = 0;
    while (guest->is_running && !guest->is_ending) {
        uint64_t now_ns = clock_monotonic_ns();
        uint64_t due = steps_due(guest->state.pages_per_second, now_ns - start_ns) - done;
        if (guest->state.working_set_pages > 0)
            write_steps_locked(guest, MIN(due, (uint64_t)TICK_STEPS_MAX));
        done += due;
        (void)lock_condition_wait_until(&guest->changed, &guest->lock, now_ns + TICK_NS);
    }
}

static void writer_main(void *context)
{
    struct guest_fake *guest = context;
    lock_acquire(&guest->lock);
    while (!guest->is_ending) {
        if (guest->is_running)
            run_locked(guest);
        else
            lock_condition_wait(&guest->changed, &guest->lock);
    }
    lock_release(&guest->lock);
}

struct err *guest_fake_create(uint64_t page_count, void (*mark)(void *context, uint64_t page),
                              void *context, struct guest_fake **out_guest)
{
    CLEANUP(cleanup_guest) struct guest_fake *guest = calloc(1, sizeof(*guest));
    if (guest == NULL)
        return err_new(ERR_NO_MEMORY, "pretended guest");
    lock_init(&guest->lock, LOCK_TEST);
    lock_condition_init(&guest->changed);
    ferry__fake_guest_state__init(&guest->state);
    guest->page_count = page_count;
    guest->mark = mark;
    guest->mark_context = context;

    guest->memory_fd = memfd_create("fake-guest", MFD_CLOEXEC);
    if (guest->memory_fd < 0 || ftruncate(guest->memory_fd, (off_t)(page_count * PAGE_BYTES)) != 0)
        return err_errno(errno, "guest memory of %" PRIu64 " pages", page_count);
    void *base = mmap(NULL, page_count * PAGE_BYTES, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_NORESERVE, guest->memory_fd, 0);
    if (base == MAP_FAILED)
        return err_errno(errno, "map guest memory of %" PRIu64 " pages", page_count);
    guest->base = base;
    TRY(thread_create(ROLE_TEST, 0, writer_main, guest, &guest->writer));
    *out_guest = TAKE_PTR(guest);
    return NULL;
}

void guest_fake_destroy(struct guest_fake *guest)
{
    if (guest == NULL)
        return;
    lock_acquire(&guest->lock);
    guest->is_ending = true;
    lock_condition_broadcast(&guest->changed);
    lock_release(&guest->lock);
    thread_join(guest->writer);
    if (guest->base != NULL)
        (void)munmap(guest->base, guest->page_count * PAGE_BYTES);
    cleanup_fd(&guest->memory_fd);
    lock_condition_finish(&guest->changed);
    lock_finish(&guest->lock);
    free(guest);
}

struct err *guest_fake_set_state(struct guest_fake *guest, const Ferry__FakeGuestState *state)
{
    if (state->filled_pages > guest->page_count || state->working_set_pages > guest->page_count)
        return err_new(ERR_INVALID,
                       "pretended guest of %" PRIu64 " pages with %" PRIu64 " filled and %" PRIu64
                       " in use",
                       guest->page_count, state->filled_pages, state->working_set_pages);
    if (state->pages_per_second > RATE_MAX)
        return err_new(ERR_INVALID, "pretended guest that writes %" PRIu64 " pages a second",
                       state->pages_per_second);

    lock_acquire(&guest->lock);
    ASSERT(!guest->is_running);
    guest->state = *state;
    lock_release(&guest->lock);
    return NULL;
}

void guest_fake_state(struct guest_fake *guest, Ferry__FakeGuestState *out_state)
{
    lock_acquire(&guest->lock);
    *out_state = guest->state;
    lock_release(&guest->lock);
}

void guest_fake_fill(struct guest_fake *guest)
{
    Ferry__FakeGuestState state;
    guest_fake_state(guest, &state);
    for (uint64_t page = 0; page < state.filled_pages; page++)
        write_page(guest->base + page * PAGE_BYTES, state.seed, STEP_INITIAL, page);
}

static void set_running(struct guest_fake *guest, bool is_running)
{
    lock_acquire(&guest->lock);
    guest->is_running = is_running;
    lock_condition_broadcast(&guest->changed);
    lock_release(&guest->lock);
}

void guest_fake_resume(struct guest_fake *guest)
{
    set_running(guest, true);
}

/* The writer holds the lock while it writes, so who gets it finds whole steps. */
void guest_fake_pause(struct guest_fake *guest)
{
    set_running(guest, false);
}

int guest_fake_memory_fd(const struct guest_fake *guest)
{
    return guest->memory_fd;
}

uint64_t guest_fake_page_count(const struct guest_fake *guest)
{
    return guest->page_count;
}

uint8_t *guest_fake_base(const struct guest_fake *guest)
{
    return guest->base;
}

/* The step that wrote the page last. */
static bool last_step_of(const Ferry__FakeGuestState *state, uint64_t page, uint64_t *out_step)
{
    if (page < state->working_set_pages && page < state->step) {
        uint64_t rounds = (state->step - 1 - page) / state->working_set_pages;
        *out_step = rounds * state->working_set_pages + page;
        return true;
    }
    *out_step = STEP_INITIAL;
    return page < state->filled_pages;
}

struct err *guest_fake_check(const uint8_t *memory, uint64_t page_count,
                             const Ferry__FakeGuestState *state)
{
    static const uint8_t zeros[PAGE_BYTES];
    uint8_t expected[PAGE_BYTES];

    for (uint64_t page = 0; page < page_count; page++) {
        const uint8_t *found = memory + page * PAGE_BYTES;
        uint64_t step;
        bool is_written = last_step_of(state, page, &step);
        if (is_written)
            write_page(expected, state->seed, step, page);
        if (memcmp(found, is_written ? expected : zeros, PAGE_BYTES) != 0)
            return err_new(ERR_INVALID,
                           "page %" PRIu64 " is not what step %" PRIu64 " of %" PRIu64 " left",
                           page, step, state->step);
    }
    return NULL;
}
