/* SPDX-License-Identifier: Apache-2.0 */
/*
 * interrupts.h - how devices interrupt the guest, and are notified without an exit.
 *
 * Implemented over KVM by vmm/kvm/kvm_interrupts.c and for unit tests by interrupts_fake.c.
 * Thread: raise, lower and fire: any. The rest: with the device lock held.
 */
#ifndef VMM_BUS_INTERRUPTS_H
#define VMM_BUS_INTERRUPTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct interrupts;

struct interrupts_ops {
    /* ISA and ACPI lines (GSI 0..23): level of the line. */
    void (*set_line)(struct interrupts *interrupts, uint32_t gsi, bool is_high);
    /* Message-signalled: a vector owns a route and an irqfd. */
    struct err *(*msi_create)(struct interrupts *interrupts, uint32_t *out_vector);
    void (*msi_destroy)(struct interrupts *interrupts, uint32_t vector);
    /* Takes effect before it returns. A masked vector is not set. */
    struct err *(*msi_set)(struct interrupts *interrupts, uint32_t vector, uint64_t address,
                           uint32_t data);
    void (*msi_fire)(struct interrupts *interrupts, uint32_t vector);
    /* A guest write of any width to the MMIO address signals fd instead of exiting. */
    struct err *(*notify_add)(struct interrupts *interrupts, uint64_t mmio_address, int fd);
    void (*notify_remove)(struct interrupts *interrupts, uint64_t mmio_address, int fd);
};

struct interrupts {
    const struct interrupts_ops *ops;
};

static inline void interrupts_set_line(struct interrupts *interrupts, uint32_t gsi, bool is_high)
{
    interrupts->ops->set_line(interrupts, gsi, is_high);
}

static inline ERR_RESULT interrupts_msi_create(struct interrupts *interrupts, uint32_t *out_vector)
{
    return interrupts->ops->msi_create(interrupts, out_vector);
}

static inline void interrupts_msi_destroy(struct interrupts *interrupts, uint32_t vector)
{
    interrupts->ops->msi_destroy(interrupts, vector);
}

static inline ERR_RESULT interrupts_msi_set(struct interrupts *interrupts, uint32_t vector,
                                            uint64_t address, uint32_t data)
{
    return interrupts->ops->msi_set(interrupts, vector, address, data);
}

static inline void interrupts_msi_fire(struct interrupts *interrupts, uint32_t vector)
{
    interrupts->ops->msi_fire(interrupts, vector);
}

static inline ERR_RESULT interrupts_notify_add(struct interrupts *interrupts, uint64_t mmio_address,
                                               int fd)
{
    return interrupts->ops->notify_add(interrupts, mmio_address, fd);
}

static inline void interrupts_notify_remove(struct interrupts *interrupts, uint64_t mmio_address,
                                            int fd)
{
    interrupts->ops->notify_remove(interrupts, mmio_address, fd);
}

#endif
