/* SPDX-License-Identifier: Apache-2.0 */
/*
 * interrupts_fake.h - interrupts that unit tests can look at.
 *
 * Thread: fire and set_line: any; the rest: one.
 */
#ifndef VMM_BUS_INTERRUPTS_FAKE_H
#define VMM_BUS_INTERRUPTS_FAKE_H

#include "vmm/bus/interrupts.h"

struct interrupts_fake;

ERR_RESULT interrupts_fake_create(struct interrupts_fake **out_fake);
void interrupts_fake_destroy(struct interrupts_fake *fake); /* accepts NULL */
struct interrupts *interrupts_fake_interrupts(struct interrupts_fake *fake);

bool interrupts_fake_line(const struct interrupts_fake *fake, uint32_t gsi);
/* How often an MSI with this data was fired; vectors that were not set have data 0. */
unsigned interrupts_fake_fired(const struct interrupts_fake *fake, uint32_t data);
/* The descriptor that a write to the address signals; -1 when there is none. */
int interrupts_fake_notify_fd(const struct interrupts_fake *fake, uint64_t mmio_address);
unsigned interrupts_fake_notify_count(const struct interrupts_fake *fake);
unsigned interrupts_fake_vector_count(const struct interrupts_fake *fake);

#endif
