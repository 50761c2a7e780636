/* SPDX-License-Identifier: Apache-2.0 */
/*
 * move_watch.c - see move_watch.h. Tested by: tests/system.
 */
#include "tools/vm-migrate/move_watch.h"

#include <stdio.h>
#include <unistd.h>

#include "base/checked_math.h"
#include "base/clock.h"
#include "base/limits.h"
#include "tools/program_json.h"
#include "tools/program_units.h"

static struct move_watch *self_of(struct move_observer *observer)
{
    return CONTAINER_OF(observer, struct move_watch, base);
}

static uint64_t elapsed_us(const struct move_watch *watch)
{
    return (clock_monotonic_ns() - watch->started_ns) / NS_PER_US;
}

static void watch_phase(struct move_observer *observer, const char *name)
{
    struct move_watch *watch = self_of(observer);

    __atomic_store_n(&watch->phase, name, __ATOMIC_RELEASE); /* for tick */
    if (watch->json)
        program_json_event(json_pack("{s:s, s:s, s:s, s:I}", "event", "phase", "machine",
                                     watch->name, "phase", name, "us",
                                     (json_int_t)elapsed_us(watch)));
}

static void watch_round(struct move_observer *observer, const struct precopy_progress *progress)
{
    struct move_watch *watch = self_of(observer);
    uint64_t rate = progress->pages_per_second * PAGE_BYTES;

    __atomic_store_n(&watch->rounds, progress->rounds_done, __ATOMIC_RELAXED); /* a statistic */
    if (watch->json)
        program_json_event(
            json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I}", "event", "round", "machine",
                      watch->name, "round", (json_int_t)progress->rounds_done, "left_pages",
                      (json_int_t)progress->left_pages, "bytes_per_second", (json_int_t)rate,
                      "blackout_us", (json_int_t)(precopy_blackout_ns(*progress) / NS_PER_US), "us",
                      (json_int_t)elapsed_us(watch)));
    else if (!watch->is_terminal)
        (void)printf("round %u: %s left, %s/s\n", progress->rounds_done,
                     readable_bytes(progress->left_pages * PAGE_BYTES).text,
                     readable_bytes(rate).text);
}

static void watch_waiting(struct move_observer *observer, const char *why)
{
    struct move_watch *watch = self_of(observer);

    if (watch->json)
        program_json_event(json_pack("{s:s, s:s, s:o}", "event", "waiting", "machine", watch->name,
                                     "why", program_json_text(why)));
    else
        (void)fprintf(stderr, "%swaiting to learn whether '%s' runs there: %s\n",
                      watch->is_terminal ? "\n" : "", watch->name, why);
}

static const struct move_observer_ops watch_ops = {
    .phase = watch_phase,
    .round = watch_round,
    .waiting = watch_waiting,
};

void move_watch_init(struct move_watch *watch, const char *name, bool json)
{
    *watch = (struct move_watch){
        .base.ops = &watch_ops,
        .name = name,
        .json = json,
        .is_terminal = !json && isatty(STDOUT_FILENO) == 1,
        .started_ns = clock_monotonic_ns(),
        .phase = "start",
    };
}

void move_watch_tick(struct move_watch *watch, struct page_counts counts)
{
    uint64_t ms = MAX(elapsed_us(watch) / 1000, (uint64_t)1);

    if (!watch->is_terminal)
        return;
    (void)printf("\r%s: %-9s  round %u  %s in %s, %s/s   ", watch->name,
                 __atomic_load_n(&watch->phase, __ATOMIC_ACQUIRE), /* pairs with watch_phase */
                 __atomic_load_n(&watch->rounds, __ATOMIC_RELAXED) + 1,
                 readable_bytes(counts.payload_bytes).text, readable_ms(ms).text,
                 readable_bytes(counts.payload_bytes * 1000 / ms).text);
    (void)fflush(stdout);
}

static void report_json(const struct move_watch *watch, const char *target,
                        const struct move_report *report)
{
    json_t *event = json_pack(
        "{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "event", "moved", "machine",
        watch->name, "target", target, "rounds", (json_int_t)report->rounds, "memory_pages",
        (json_int_t)report->memory_pages, "zero_pages", (json_int_t)report->pages.zero_pages,
        "raw_pages", (json_int_t)report->pages.raw_pages, "lz4_pages",
        (json_int_t)report->pages.lz4_pages, "page_bytes", (json_int_t)report->pages.payload_bytes,
        "state_bytes", (json_int_t)report->state_bytes, "rest_pages",
        (json_int_t)report->rest_pages);

    (void)json_object_set_new(event, "total_us",
                              json_integer((json_int_t)(report->total_ns / NS_PER_US)));
    (void)json_object_set_new(
        event, "blackout_predicted_us",
        json_integer((json_int_t)(report->blackout_predicted_ns / NS_PER_US)));
    (void)json_object_set_new(event, "blackout_us",
                              json_integer((json_int_t)(report->blackout_ns / NS_PER_US)));
    (void)json_object_set_new(event, "round_trip_us",
                              json_integer((json_int_t)(report->round_trip_ns / NS_PER_US)));
    program_json_event(event);
}

void move_watch_report(struct move_watch *watch, const char *target,
                       const struct move_report *report)
{
    const struct page_counts *pages = &report->pages;
    uint64_t total_ms = MAX(report->total_ns / NS_PER_MS, (uint64_t)1);

    if (watch->json) {
        report_json(watch, target, report);
        return;
    }
    (void)printf("%s%s runs on %s\n", watch->is_terminal ? "\r\033[K" : "", watch->name, target);
    (void)printf("  total     %s, %u rounds, %s/s\n", readable_ms(total_ms).text, report->rounds,
                 readable_bytes(pages->payload_bytes * 1000 / total_ms).text);
    (void)printf("  memory    %s of %s: %llu raw, %llu compressed, %llu zero pages\n",
                 readable_bytes(pages->payload_bytes).text,
                 readable_bytes(report->memory_pages * PAGE_BYTES).text,
                 (unsigned long long)pages->raw_pages, (unsigned long long)pages->lz4_pages,
                 (unsigned long long)pages->zero_pages);
    (void)printf("  blackout  %s, %s predicted; %llu pages and %s of state in it\n",
                 report->blackout_ns == 0 ? "not known"
                                          : readable_us(report->blackout_ns / NS_PER_US).text,
                 readable_us(report->blackout_predicted_ns / NS_PER_US).text,
                 (unsigned long long)report->rest_pages, readable_bytes(report->state_bytes).text);
}
