/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include <sys/mman.h>

#include "base/bitmap.h"
#include "base/checked_math.h"
#include "base/limits.h"
#include "base/unit_test.h"
#include "vmm/memory/dirty_log.h"
#include "vmm/memory/dirty_tracker.h"
#include "vmm/memory/guest_memory.h"

#define REGION_PAGES 256u /* of each of two regions */
#define PAGES        (2 * REGION_PAGES)
#define WORDS        (REGION_PAGES / BITMAP_WORD_BITS)

/* A log like KVM's: reports a page until it is cleared. */
struct fake_log {
    struct dirty_log base;
    uint64_t words[2][WORDS];
    bool is_on;
    void (*on_clear)(struct fake_log *log); /* what happens just before a clear */
};

struct fixture {
    struct guest_memory *memory;
    struct fake_log log;
    struct dirty_tracker *tracker;
    struct dirty_consumer *watched; /* for on_clear */
    uint64_t *round;
};

static struct err *fake_enable(struct dirty_log *base)
{
    struct fake_log *log = CONTAINER_OF(base, struct fake_log, base);
    memset(log->words, 0xff, sizeof(log->words));
    log->is_on = true;
    return NULL;
}

static struct err *fake_disable(struct dirty_log *base)
{
    CONTAINER_OF(base, struct fake_log, base)->is_on = false;
    return NULL;
}

static struct err *fake_get(struct dirty_log *base, size_t region, uint64_t *out_words)
{
    struct fake_log *log = CONTAINER_OF(base, struct fake_log, base);
    memcpy(out_words, log->words[region], sizeof(log->words[region]));
    return NULL;
}

static struct err *fake_clear(struct dirty_log *base, size_t region, uint64_t first, uint64_t count,
                              const uint64_t *words)
{
    struct fake_log *log = CONTAINER_OF(base, struct fake_log, base);

    assert_int_equal(first % BITMAP_WORD_BITS, 0);
    assert_true(first + count <= REGION_PAGES);
    if (log->on_clear != NULL)
        log->on_clear(log);
    for (uint64_t word = 0; word < count / BITMAP_WORD_BITS; word++)
        log->words[region][first / BITMAP_WORD_BITS + word] &= ~words[word];
    return NULL;
}

static const struct dirty_log_ops fake_log_ops = {
    .enable = fake_enable,
    .disable = fake_disable,
    .get = fake_get,
    .clear = fake_clear,
};

static void vcpu_writes(struct fixture *fixture, uint64_t page)
{
    bitmap_set(fixture->log.words[page / REGION_PAGES], page % REGION_PAGES);
}

static void device_writes(struct fixture *fixture, uint64_t page)
{
    uint64_t address =
        page < REGION_PAGES ? page * PAGE_BYTES : 4 * GIB + (page - REGION_PAGES) * PAGE_BYTES;
    assert_true(guest_write(fixture->memory, gpa(address), "x", 1));
}

static int set_up(void **state)
{
    static struct fixture fixture;

    memset(&fixture, 0, sizeof(fixture));
    fixture.log.base.ops = &fake_log_ops;
    ASSERT_OK(guest_memory_create(2 * MIB, MIB, &fixture.memory));
    ASSERT_OK(dirty_tracker_create(fixture.memory, &fixture.log.base, &fixture.tracker));
    *state = &fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;

    dirty_tracker_destroy(fixture->tracker);
    guest_memory_destroy(fixture->memory);
    return 0;
}

static struct dirty_consumer *attach(struct fixture *fixture, const char *since)
{
    struct dirty_consumer *consumer = NULL;
    ASSERT_OK(dirty_tracker_attach(fixture->tracker, since, &consumer));
    return consumer;
}

/* Takes every bit, as a borrower does; the number of pages, and the last one's number. */
static uint64_t take_all(struct dirty_consumer *consumer, uint64_t *out_last)
{
    uint64_t *words = mmap(NULL, bitmap_bytes(PAGES), PROT_READ | PROT_WRITE, MAP_SHARED,
                           dirty_consumer_fd(consumer), 0);
    uint64_t count = 0;

    assert_ptr_not_equal(words, MAP_FAILED);
    for (uint64_t page = bitmap_next_set(words, PAGES, 0); page < PAGES;
         page = bitmap_next_set(words, PAGES, page + 1)) {
        *out_last = page;
        count++;
    }
    for (size_t word = 0; word < bitmap_words(PAGES); word++)
        (void)bitmap_atomic_take_word(words, word);
    (void)munmap(words, bitmap_bytes(PAGES));
    return count;
}

static uint64_t harvest_all(struct dirty_consumer *consumer)
{
    uint64_t dirty = 0;
    ASSERT_OK(dirty_consumer_harvest(consumer, 0, 0, &dirty));
    return dirty;
}

/* Begins as a borrower does: everything is handed out once. */
static struct dirty_consumer *attach_and_drain(struct fixture *fixture)
{
    struct dirty_consumer *consumer = attach(fixture, NULL);
    uint64_t last;

    (void)harvest_all(consumer);
    assert_int_equal(take_all(consumer, &last), PAGES);
    return consumer;
}

#define FIXTURE struct fixture *fixture = *unused

TEST(a_new_reader_gets_every_page_once)
{
    FIXTURE;
    struct dirty_consumer *consumer = attach_and_drain(fixture);
    uint64_t last;

    assert_false(dirty_consumer_is_incremental(consumer));
    assert_int_equal(harvest_all(consumer), 0);
    assert_int_equal(take_all(consumer, &last), 0);
    dirty_consumer_detach(consumer);
}

TEST(writes_of_vcpus_and_devices_in_both_regions_are_harvested)
{
    FIXTURE;
    struct dirty_consumer *consumer = attach_and_drain(fixture);
    uint64_t last = 0;

    vcpu_writes(fixture, 3);
    vcpu_writes(fixture, REGION_PAGES + 5);
    device_writes(fixture, 4);
    device_writes(fixture, PAGES - 1);

    assert_int_equal(harvest_all(consumer), 4);
    assert_int_equal(take_all(consumer, &last), 4);
    assert_int_equal(last, PAGES - 1);
    assert_int_equal(harvest_all(consumer), 0);
    dirty_consumer_detach(consumer);
}

TEST(a_range_leaves_the_rest_for_later)
{
    FIXTURE;
    struct dirty_consumer *consumer = attach_and_drain(fixture);
    uint64_t dirty = 0;

    vcpu_writes(fixture, 10);
    vcpu_writes(fixture, 100);
    device_writes(fixture, REGION_PAGES);
    ASSERT_OK(dirty_consumer_harvest(consumer, 64, 64, &dirty));

    assert_int_equal(dirty, 1);
    assert_int_equal(harvest_all(consumer), 3);
    assert_fails(dirty_consumer_harvest(consumer, PAGES, 1, &dirty), ERR_INVALID);
    dirty_consumer_detach(consumer);
}

TEST(one_readers_harvest_reaches_the_other)
{
    FIXTURE;
    struct dirty_consumer *first = attach_and_drain(fixture);
    struct dirty_consumer *second = attach_and_drain(fixture);
    uint64_t last = 0;

    (void)take_all(first, &last);
    vcpu_writes(fixture, 42);
    device_writes(fixture, 43);
    (void)harvest_all(first);

    assert_int_equal(take_all(first, &last), 2);
    assert_int_equal(take_all(second, &last), 2);
    dirty_consumer_detach(first);
    dirty_consumer_detach(second);
}

/* The reader is as fast as can be: it takes its bits while the harvest is under way, and the guest
 * writes again just before the log is cleared. */
static struct fixture *racing;
static uint64_t taken_before_clear;

static void take_before_clear(struct fake_log *log)
{
    uint64_t last;

    (void)log;
    taken_before_clear += take_all(racing->watched, &last);
}

TEST(no_bit_is_visible_before_the_log_is_cleared)
{
    FIXTURE;
    struct dirty_consumer *consumer = attach_and_drain(fixture);
    uint64_t last = 0;

    racing = fixture;
    fixture->watched = consumer;
    taken_before_clear = 0;
    fixture->log.on_clear = take_before_clear;
    vcpu_writes(fixture, 7);
    (void)harvest_all(consumer);

    assert_int_equal(taken_before_clear, 0);
    assert_int_equal(take_all(consumer, &last), 1);
    assert_int_equal(last, 7);
    dirty_consumer_detach(consumer);
}

TEST(the_log_is_on_only_while_somebody_reads)
{
    FIXTURE;

    assert_false(fixture->log.is_on);
    struct dirty_consumer *first = attach(fixture, NULL);
    struct dirty_consumer *second = attach(fixture, NULL);
    dirty_consumer_detach(first);
    assert_true(fixture->log.is_on);
    dirty_consumer_detach(second);
    assert_false(fixture->log.is_on);
}

static void save(struct fixture *fixture, const char *since, const char *name)
{
    struct dirty_consumer *consumer = attach(fixture, since);
    uint64_t last;

    (void)harvest_all(consumer);
    (void)take_all(consumer, &last);
    ASSERT_OK(dirty_consumer_mark_cut(consumer));
    ASSERT_OK(dirty_consumer_keep(consumer, name));
    dirty_consumer_detach(consumer);
}

TEST(a_child_snapshot_begins_with_the_changes_since_its_parent)
{
    FIXTURE;
    uint64_t last = 0;

    save(fixture, NULL, "parent");
    assert_true(fixture->log.is_on);
    vcpu_writes(fixture, 9);
    struct dirty_consumer *migration = attach_and_drain(fixture);
    dirty_consumer_detach(migration);

    struct dirty_consumer *child = attach(fixture, "parent");
    assert_true(dirty_consumer_is_incremental(child));
    assert_int_equal(take_all(child, &last), 1);
    assert_int_equal(last, 9);
    dirty_consumer_detach(child);

    struct dirty_consumer *stranger = attach(fixture, "another");
    assert_false(dirty_consumer_is_incremental(stranger));
    dirty_consumer_detach(stranger);
}

TEST(a_save_that_fails_at_any_point_loses_nothing)
{
    for (int point = 0; point < 3; point++) {
        FIXTURE;
        uint64_t last = 0;

        save(fixture, NULL, "parent");
        vcpu_writes(fixture, 20);
        struct dirty_consumer *failing = attach(fixture, "parent");
        if (point > 0) {
            (void)harvest_all(failing);
            (void)take_all(failing, &last);
            device_writes(fixture, 21);
        }
        if (point > 1) {
            (void)harvest_all(failing);
            (void)take_all(failing, &last);
            ASSERT_OK(dirty_consumer_mark_cut(failing));
        }
        vcpu_writes(fixture, 22);
        dirty_consumer_detach(failing);

        struct dirty_consumer *again = attach(fixture, "parent");
        assert_true(dirty_consumer_is_incremental(again));
        assert_int_equal(harvest_all(again), point > 0 ? 3 : 2);
        dirty_consumer_detach(again);
    }
}

TEST(changes_before_the_cut_are_not_the_next_childs)
{
    FIXTURE;
    uint64_t last = 0;

    save(fixture, NULL, "parent");
    vcpu_writes(fixture, 30);
    struct dirty_consumer *child = attach(fixture, "parent");
    (void)harvest_all(child);
    (void)take_all(child, &last);
    ASSERT_OK(dirty_consumer_mark_cut(child));
    vcpu_writes(fixture, 31);
    (void)harvest_all(child);
    ASSERT_OK(dirty_consumer_keep(child, "child"));
    dirty_consumer_detach(child);

    struct dirty_consumer *grandchild = attach(fixture, "child");
    assert_int_equal(take_all(grandchild, &last), 1);
    assert_int_equal(last, 31);
    dirty_consumer_detach(grandchild);
}

TEST(nothing_is_kept_without_a_cut)
{
    FIXTURE;
    struct dirty_consumer *consumer = attach(fixture, NULL);

    assert_fails(dirty_consumer_keep(consumer, "x"), ERR_STATE);
    dirty_consumer_detach(consumer);
}

int main(void)
{
#define CASE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(a_new_reader_gets_every_page_once),
        CASE(writes_of_vcpus_and_devices_in_both_regions_are_harvested),
        CASE(a_range_leaves_the_rest_for_later),
        CASE(one_readers_harvest_reaches_the_other),
        CASE(no_bit_is_visible_before_the_log_is_cleared),
        CASE(the_log_is_on_only_while_somebody_reads),
        CASE(a_child_snapshot_begins_with_the_changes_since_its_parent),
        CASE(a_save_that_fails_at_any_point_loses_nothing),
        CASE(changes_before_the_cut_are_not_the_next_childs),
        CASE(nothing_is_kept_without_a_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
