/* SPDX-License-Identifier: Apache-2.0 */
/*
 * irqchip_state.c - see irqchip_state.h.
 * Tested by: tests/system, which saves and restores guests that interrupts drive.
 */
#include "vmm/cpu/irqchip_state.h"

#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "proto/device_state.pb-c.h"
#include "vmm/devices/state_message.h"
#include "vmm/kvm/kvm_vm.h"

#define IRQCHIP_VERSION 1u
#define IOAPIC_PINS     KVM_IOAPIC_NUM_PINS

/* Every register of an 8259, named alike by the message and by KVM. */
#define PIC_FIELDS(X)                                                                              \
    X(last_irr)                                                                                    \
    X(irr)                                                                                         \
    X(imr)                                                                                         \
    X(isr)                                                                                         \
    X(priority_add)                                                                                \
    X(irq_base)                                                                                    \
    X(read_reg_select)                                                                             \
    X(poll)                                                                                        \
    X(special_mask)                                                                                \
    X(init_state)                                                                                  \
    X(auto_eoi)                                                                                    \
    X(rotate_on_auto_eoi)                                                                          \
    X(special_fully_nested_mode)                                                                   \
    X(init4)                                                                                       \
    X(elcr)                                                                                        \
    X(elcr_mask)

struct irqchip_device {
    struct device base;
    struct kvm_vm *vm;
    ProtobufCMessage *initial; /* owned */
};

static struct err *save_pic(struct kvm_vm *vm, uint32_t id, Ferry__PicState **out_state)
{
    struct kvm_irqchip chip = {.chip_id = id};

    TRY(kvm_vm_get_irqchip(vm, &chip));
    TRY(STATE_MESSAGE_CREATE(&ferry__pic_state__descriptor, out_state));
#define X(field) (*out_state)->field = chip.chip.pic.field;
    PIC_FIELDS(X)
#undef X
    return NULL;
}

static struct err *apply_pic(struct kvm_vm *vm, uint32_t id, const Ferry__PicState *state)
{
    struct kvm_irqchip chip = {.chip_id = id};

#define X(field) chip.chip.pic.field = (uint8_t)state->field;
    PIC_FIELDS(X)
#undef X
    return kvm_vm_set_irqchip(vm, &chip);
}

static struct err *validate_pic(const Ferry__PicState *state)
{
    if (state == NULL)
        return err_new(ERR_INVALID, "interrupt chip is missing");
#define X(field) TRY(state_check_max(#field, state->field, UINT8_MAX));
    PIC_FIELDS(X)
#undef X
    return NULL;
}

static struct err *fill_state(struct irqchip_device *self, Ferry__IrqchipState *state)
{
    struct kvm_irqchip chip = {.chip_id = KVM_IRQCHIP_IOAPIC};

    TRY(save_pic(self->vm, KVM_IRQCHIP_PIC_MASTER, &state->pic_master));
    TRY(save_pic(self->vm, KVM_IRQCHIP_PIC_SLAVE, &state->pic_slave));
    TRY(kvm_vm_get_irqchip(self->vm, &chip));
    state->ioapic_base = chip.chip.ioapic.base_address;
    state->ioapic_select = chip.chip.ioapic.ioregsel;
    state->ioapic_id = chip.chip.ioapic.id;
    state->ioapic_irr = chip.chip.ioapic.irr;
    state->ioapic_redirections = calloc(IOAPIC_PINS, sizeof(*state->ioapic_redirections));
    if (state->ioapic_redirections == NULL)
        return err_new(ERR_NO_MEMORY, "interrupt chips");
    state->n_ioapic_redirections = IOAPIC_PINS;
    for (size_t i = 0; i < IOAPIC_PINS; i++)
        state->ioapic_redirections[i] = chip.chip.ioapic.redirtbl[i].bits;
    return NULL;
}

static struct err *irqchip_save(struct device *device, ProtobufCMessage **out_state)
{
    struct irqchip_device *self = CONTAINER_OF(device, struct irqchip_device, base);
    Ferry__IrqchipState *state = NULL;

    TRY(STATE_MESSAGE_CREATE(&ferry__irqchip_state__descriptor, &state));
    return state_message_finish(fill_state(self, state), &state->base, out_state);
}

static struct err *irqchip_validate(struct device *device, uint32_t version,
                                    const ProtobufCMessage *message)
{
    const Ferry__IrqchipState *state = STATE_MESSAGE(Ferry__IrqchipState, message);

    (void)device;
    (void)version;
    TRY(validate_pic(state->pic_master));
    TRY(validate_pic(state->pic_slave));
    if (state->n_ioapic_redirections != IOAPIC_PINS)
        return err_new(ERR_INVALID, "IOAPIC with %zu pins", state->n_ioapic_redirections);
    TRY(state_check_max("ioapic_select", state->ioapic_select, UINT8_MAX));
    return state_check_max("ioapic_id", state->ioapic_id, 15);
}

static struct err *irqchip_apply(struct device *device, const ProtobufCMessage *message)
{
    struct irqchip_device *self = CONTAINER_OF(device, struct irqchip_device, base);
    const Ferry__IrqchipState *state = STATE_MESSAGE(Ferry__IrqchipState, message);
    struct kvm_irqchip chip = {.chip_id = KVM_IRQCHIP_IOAPIC};

    TRY(apply_pic(self->vm, KVM_IRQCHIP_PIC_MASTER, state->pic_master));
    TRY(apply_pic(self->vm, KVM_IRQCHIP_PIC_SLAVE, state->pic_slave));
    chip.chip.ioapic.base_address = state->ioapic_base;
    chip.chip.ioapic.ioregsel = state->ioapic_select;
    chip.chip.ioapic.id = state->ioapic_id;
    chip.chip.ioapic.irr = state->ioapic_irr;
    for (size_t i = 0; i < IOAPIC_PINS; i++)
        chip.chip.ioapic.redirtbl[i].bits = state->ioapic_redirections[i];
    return kvm_vm_set_irqchip(self->vm, &chip);
}

static void irqchip_reset(struct device *device)
{
    struct irqchip_device *self = CONTAINER_OF(device, struct irqchip_device, base);

    /* The chips have held this very state before. */
    err_free(irqchip_apply(device, self->initial));
}

static struct err *irqchip_start(struct device *device)
{
    (void)device;
    return NULL;
}

static void irqchip_stop(struct device *device)
{
    (void)device;
}

static void irqchip_destroy(struct device *device)
{
    struct irqchip_device *self = CONTAINER_OF(device, struct irqchip_device, base);

    if (self->initial != NULL)
        protobuf_c_message_free_unpacked(self->initial, NULL);
    free(self);
}

static const struct device_ops irqchip_device_ops = {
    .section = "irqchip",
    .version = IRQCHIP_VERSION,
    .state_type = &ferry__irqchip_state__descriptor,
    .save = irqchip_save,
    .validate = irqchip_validate,
    .apply = irqchip_apply,
    .reset = irqchip_reset,
    .start = irqchip_start,
    .stop = irqchip_stop,
    .destroy = irqchip_destroy,
};

struct err *irqchip_device_create(struct device_host *host, struct kvm_vm *vm,
                                  struct device **out_device)
{
    struct irqchip_device *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return err_new(ERR_NO_MEMORY, "interrupt chips");
    self->base = (struct device){.ops = &irqchip_device_ops, .host = host};
    self->vm = vm;

    struct err *err = irqchip_save(&self->base, &self->initial);
    if (err != NULL) {
        irqchip_destroy(&self->base);
        return err;
    }
    *out_device = &self->base;
    return NULL;
}
