/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop_wake.h - asks the loop to call back, from any thread, as often as wanted; unlike a posted
 * message it can be taken back by its owner, and it needs no memory.
 */
#ifndef VMM_MACHINE_LOOP_WAKE_H
#define VMM_MACHINE_LOOP_WAKE_H

#include "base/err.h"

struct event_loop;
struct loop_wake;

ERR_RESULT loop_wake_create(struct event_loop *loop, void (*callback)(void *context), void *context,
                            struct loop_wake **out_wake);
void loop_wake_destroy(struct loop_wake *wake); /* no more calls; accepts NULL. Thread: loop. */

/* The callback runs at least once after this. Thread: any. */
void loop_wake(struct loop_wake *wake);

#endif
