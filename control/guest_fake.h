/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guest_fake.h - memory and a thread that writes to it, in place of a guest, for tests.
 *
 * Step k writes page k mod working_set with content that follows from seed and k. So from the
 * number of steps done, every byte of memory is known: a page that was lost, torn or taken too
 * early differs. Thread: loop, but for the writer inside.
 */
#ifndef CONTROL_GUEST_FAKE_H
#define CONTROL_GUEST_FAKE_H

#include <stdint.h>

#include "base/err.h"
#include "proto/machine_fake.pb-c.h"

struct guest_fake;

/* Paused, with empty memory. `mark` is called after each page written, on the writer's thread. */
ERR_RESULT guest_fake_create(uint64_t page_count, void (*mark)(void *context, uint64_t page),
                             void *context, struct guest_fake **out_guest);
void guest_fake_destroy(struct guest_fake *guest); /* accepts NULL */

/* Validates, then applies; the content of memory is the caller's affair. Only while paused. */
ERR_RESULT guest_fake_set_state(struct guest_fake *guest, const Ferry__FakeGuestState *state);
void guest_fake_state(struct guest_fake *guest, Ferry__FakeGuestState *out_state);
void guest_fake_fill(struct guest_fake *guest); /* writes what memory holds at the start */

void guest_fake_resume(struct guest_fake *guest);
void guest_fake_pause(struct guest_fake *guest); /* after it, no page changes */

int guest_fake_memory_fd(const struct guest_fake *guest);
uint64_t guest_fake_page_count(const struct guest_fake *guest);
uint8_t *guest_fake_base(const struct guest_fake *guest);

/* Is memory what a guest in this state must have? ERR_INVALID names the first page that is not.
 * Works on any copy of a guest's memory. Thread: any. */
ERR_RESULT guest_fake_check(const uint8_t *memory, uint64_t page_count,
                            const Ferry__FakeGuestState *state);

#endif
