/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvm_interrupts.c - see kvm_interrupts.h.
 *
 * A vector keeps its irqfd for life. The kernel takes the whole routing table at once, so setting
 * one vector sends all; a masked or unset vector is simply not in the table, and firing it does
 * nothing.
 *
 * Tested by: tests/kernel/kvm_behaviour_test.c and the virtio tests of whole machines.
 */
#include "vmm/kvm/kvm_interrupts.h"

#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/assert.h"
#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/limits.h"
#include "base/lock.h"
#include "vmm/kvm/kvm_ioctl_internal.h"
#include "vmm/kvm/kvm_vm.h"

#define LINES         24u /* pins of the IOAPIC */
#define PIC_LINES     16u
#define MSI_GSI_FIRST LINES
#define ROUTES_FIXED  (LINES + PIC_LINES)
#define TIMER_PIN     2u

struct vector {
    int irqfd; /* -1: free */
    bool is_routed;
    uint64_t address;
    uint32_t data;
};

struct kvm_interrupts {
    struct interrupts base;
    struct kvm_vm *vm;
    struct lock lock;
    struct vector vectors[MACHINE_VECTORS_MAX] GUARDED_BY(&lock);
    struct kvm_irq_routing *table GUARDED_BY(&lock); /* owned */
};

static void add_chip_route(struct kvm_irq_routing *table, uint32_t gsi, uint32_t chip, uint32_t pin)
{
    table->entries[table->nr++] = (struct kvm_irq_routing_entry){
        .gsi = gsi,
        .type = KVM_IRQ_ROUTING_IRQCHIP,
        .u.irqchip = {.irqchip = chip, .pin = pin},
    };
}

/* ISA lines reach both the PICs and the IOAPIC; the timer is on IOAPIC pin 2, which takes the
 * place of the cascade (MADT says so). */
static void add_fixed_routes(struct kvm_irq_routing *table)
{
    for (uint32_t gsi = 0; gsi < LINES; gsi++) {
        if (gsi < PIC_LINES / 2 && gsi != TIMER_PIN)
            add_chip_route(table, gsi, KVM_IRQCHIP_PIC_MASTER, gsi);
        else if (gsi >= PIC_LINES / 2 && gsi < PIC_LINES)
            add_chip_route(table, gsi, KVM_IRQCHIP_PIC_SLAVE, gsi - PIC_LINES / 2);
        if (gsi != TIMER_PIN)
            add_chip_route(table, gsi, KVM_IRQCHIP_IOAPIC, gsi == 0 ? TIMER_PIN : gsi);
    }
}

static struct err *send_routes_locked(struct kvm_interrupts *self) REQUIRES(&self->lock)
{
    self->table->nr = 0;
    add_fixed_routes(self->table);
    for (uint32_t i = 0; i < MACHINE_VECTORS_MAX; i++) {
        const struct vector *vector = &self->vectors[i];
        if (!vector->is_routed)
            continue;
        self->table->entries[self->table->nr++] = (struct kvm_irq_routing_entry){
            .gsi = MSI_GSI_FIRST + i,
            .type = KVM_IRQ_ROUTING_MSI,
            .u.msi = {.address_lo = (uint32_t)vector->address,
                      .address_hi = (uint32_t)(vector->address >> 32),
                      .data = vector->data},
        };
    }
    return kvm_ioctl(kvm_vm_fd(self->vm), KVM_SET_GSI_ROUTING, self->table, "route interrupts");
}

static void set_line(struct interrupts *interrupts, uint32_t gsi, bool is_high)
{
    struct kvm_interrupts *self = CONTAINER_OF(interrupts, struct kvm_interrupts, base);
    struct kvm_irq_level level = {.irq = gsi, .level = is_high};

    int result = ioctl(kvm_vm_fd(self->vm), KVM_IRQ_LINE, &level);
    ASSERT(result == 0);
}

static struct err *attach_irqfd(struct kvm_interrupts *self, uint32_t vector, int fd,
                                uint32_t flags)
{
    struct kvm_irqfd irqfd = {.fd = (uint32_t)fd, .gsi = MSI_GSI_FIRST + vector, .flags = flags};

    return kvm_ioctl(kvm_vm_fd(self->vm), KVM_IRQFD, &irqfd, "attach an interrupt's eventfd");
}

static struct err *create_vector_locked(struct kvm_interrupts *self, uint32_t *out_vector)
    REQUIRES(&self->lock)
{
    uint32_t free_vector = 0;
    while (free_vector < MACHINE_VECTORS_MAX && self->vectors[free_vector].irqfd >= 0)
        free_vector++;
    if (free_vector == MACHINE_VECTORS_MAX)
        return err_new(ERR_STATE, "interrupt vectors: all %u are taken; use fewer devices",
                       MACHINE_VECTORS_MAX);

    CLEANUP(cleanup_fd) int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0)
        return err_errno(errno, "create an interrupt's eventfd");
    TRY(attach_irqfd(self, free_vector, fd, 0));

    self->vectors[free_vector] = (struct vector){.irqfd = TAKE_FD(fd)};
    *out_vector = free_vector;
    return NULL;
}

static struct err *msi_create(struct interrupts *interrupts, uint32_t *out_vector)
{
    struct kvm_interrupts *self = CONTAINER_OF(interrupts, struct kvm_interrupts, base);

    lock_acquire(&self->lock);
    struct err *err = create_vector_locked(self, out_vector);
    lock_release(&self->lock);
    return err;
}

static void msi_destroy(struct interrupts *interrupts, uint32_t vector)
{
    struct kvm_interrupts *self = CONTAINER_OF(interrupts, struct kvm_interrupts, base);

    lock_acquire(&self->lock);
    struct vector *gone = &self->vectors[vector];
    /* Detaching an eventfd that is attached, and a table that only shrinks, do not fail. */
    err_free(attach_irqfd(self, vector, gone->irqfd, KVM_IRQFD_FLAG_DEASSIGN));
    cleanup_fd(&gone->irqfd);
    bool was_routed = gone->is_routed;
    *gone = (struct vector){.irqfd = -1};
    if (was_routed)
        err_free(send_routes_locked(self));
    lock_release(&self->lock);
}

static struct err *msi_set(struct interrupts *interrupts, uint32_t vector, uint64_t address,
                           uint32_t data)
{
    struct kvm_interrupts *self = CONTAINER_OF(interrupts, struct kvm_interrupts, base);

    lock_acquire(&self->lock);
    struct vector *set = &self->vectors[vector];
    struct err *err = NULL;
    if (!set->is_routed || set->address != address || set->data != data) {
        set->is_routed = true;
        set->address = address;
        set->data = data;
        err = send_routes_locked(self);
    }
    lock_release(&self->lock);
    return err;
}

static void msi_fire(struct interrupts *interrupts, uint32_t vector) LOCK_UNCHECKED
{
    struct kvm_interrupts *self = CONTAINER_OF(interrupts, struct kvm_interrupts, base);
    uint64_t one = 1;

    /* The owner of a vector does not fire it while it destroys it, so the fd is stable here. A
     * counter that is full means that an interrupt is pending anyway. */
    ssize_t written = write(self->vectors[vector].irqfd, &one, sizeof(one));
    (void)written;
}

static struct err *notify(struct kvm_interrupts *self, uint64_t address, int fd, uint32_t flags)
{
    struct kvm_ioeventfd ioeventfd = {.addr = address, .len = 0, .fd = fd, .flags = flags};

    return kvm_ioctl(kvm_vm_fd(self->vm), KVM_IOEVENTFD, &ioeventfd, "attach a notification");
}

static struct err *notify_add(struct interrupts *interrupts, uint64_t mmio_address, int fd)
{
    struct kvm_interrupts *self = CONTAINER_OF(interrupts, struct kvm_interrupts, base);

    return notify(self, mmio_address, fd, 0);
}

static void notify_remove(struct interrupts *interrupts, uint64_t mmio_address, int fd)
{
    struct kvm_interrupts *self = CONTAINER_OF(interrupts, struct kvm_interrupts, base);

    err_free(notify(self, mmio_address, fd, KVM_IOEVENTFD_FLAG_DEASSIGN));
}

static const struct interrupts_ops kvm_interrupts_ops = {
    .set_line = set_line,
    .msi_create = msi_create,
    .msi_destroy = msi_destroy,
    .msi_set = msi_set,
    .msi_fire = msi_fire,
    .notify_add = notify_add,
    .notify_remove = notify_remove,
};

struct err *kvm_interrupts_create(struct kvm_vm *vm,
                                  struct kvm_interrupts **out_interrupts) LOCK_UNCHECKED
{
    struct kvm_interrupts *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return err_new(ERR_NO_MEMORY, "interrupt routes");
    size_t routes = ROUTES_FIXED + MACHINE_VECTORS_MAX;
    self->table = calloc(1, sizeof(*self->table) + routes * sizeof(self->table->entries[0]));
    if (self->table == NULL) {
        free(self);
        return err_new(ERR_NO_MEMORY, "interrupt routes");
    }
    self->base.ops = &kvm_interrupts_ops;
    self->vm = vm;
    lock_init(&self->lock, LOCK_IRQ_ROUTES);
    for (uint32_t i = 0; i < MACHINE_VECTORS_MAX; i++)
        self->vectors[i].irqfd = -1;

    /* The kernel's own first table has the timer on pin 0. */
    lock_acquire(&self->lock);
    struct err *err = send_routes_locked(self);
    lock_release(&self->lock);
    if (err != NULL) {
        kvm_interrupts_destroy(self);
        return err;
    }

    *out_interrupts = self;
    return NULL;
}

void kvm_interrupts_destroy(struct kvm_interrupts *interrupts) LOCK_UNCHECKED
{
    if (interrupts == NULL)
        return;
    for (uint32_t i = 0; i < MACHINE_VECTORS_MAX; i++)
        cleanup_fd(&interrupts->vectors[i].irqfd);
    lock_finish(&interrupts->lock);
    free(interrupts->table);
    free(interrupts);
}

struct interrupts *kvm_interrupts_base(struct kvm_interrupts *interrupts)
{
    return &interrupts->base;
}
