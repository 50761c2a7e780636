/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vcpu_state.c - see vcpu_state.h.
 *
 * Order of applying: system registers (they hold the APIC's mode), general registers, XCR0 before
 * the extended state that it governs, local APIC, MSRs with the timer's deadline last, debug
 * registers, run state, and pending events at the very end, because setting other registers
 * changes them.
 */
#include "vmm/cpu/vcpu_state.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked_math.h"
#include "base/cleanup.h"
#include "vmm/cpu/cpuid.h"
#include "vmm/cpu/msr_table.h"
#include "vmm/devices/state_message.h"
#include "vmm/kvm/kvm_vcpu.h"
#include "vmm/kvm/kvm_vm.h"

#define REGISTER_COUNT  16u
#define SEGMENT_COUNT   8u
#define LAPIC_BYTES     1024u
#define XSAVE_BYTES_MIN 576u
#define XSTATE_BV_AT    512u
#define XCOMP_BV_AT     520u
#define SEGMENT_BITS    0x10fffu
#define VCPU_VERSION    1u

struct vcpu_device {
    struct device base;
    struct kvm_vcpu *kvm;
    size_t xsave_bytes;
    uint64_t xcr0_allowed;
    uint32_t *msrs; /* owned */
    size_t msr_count;
    ProtobufCMessage *initial; /* owned */
};

static uint32_t segment_attributes(const struct kvm_segment *segment)
{
    return (uint32_t)segment->type | (uint32_t)segment->s << 4 | (uint32_t)segment->dpl << 5 |
           (uint32_t)segment->present << 7 | (uint32_t)segment->avl << 8 |
           (uint32_t)segment->l << 9 | (uint32_t)segment->db << 10 | (uint32_t)segment->g << 11 |
           (uint32_t)segment->unusable << 16;
}

static struct kvm_segment segment_from(const Ferry__CpuSegment *state)
{
    uint32_t bits = state->attributes;

    return (struct kvm_segment){
        .base = state->address,
        .limit = state->limit,
        .selector = (uint16_t)state->selector,
        .type = bits & 0xf,
        .s = bits >> 4 & 1,
        .dpl = bits >> 5 & 3,
        .present = bits >> 7 & 1,
        .avl = bits >> 8 & 1,
        .l = bits >> 9 & 1,
        .db = bits >> 10 & 1,
        .g = bits >> 11 & 1,
        .unusable = bits >> 16 & 1,
    };
}

/* In the message's order. */
static void registers_of(struct kvm_regs *regs, __u64 *out_at[REGISTER_COUNT])
{
    __u64 *const order[REGISTER_COUNT] = {
        &regs->rax, &regs->rcx, &regs->rdx, &regs->rbx, &regs->rsp, &regs->rbp,
        &regs->rsi, &regs->rdi, &regs->r8,  &regs->r9,  &regs->r10, &regs->r11,
        &regs->r12, &regs->r13, &regs->r14, &regs->r15,
    };
    memcpy(out_at, order, sizeof(order));
}

static void segments_of(struct kvm_sregs2 *sregs, struct kvm_segment *out_at[SEGMENT_COUNT])
{
    struct kvm_segment *const order[SEGMENT_COUNT] = {
        &sregs->es, &sregs->cs, &sregs->ss,  &sregs->ds,
        &sregs->fs, &sregs->gs, &sregs->ldt, &sregs->tr,
    };
    memcpy(out_at, order, sizeof(order));
}

static struct err *numbers_create(size_t count, size_t *out_count, uint64_t **out_numbers)
{
    *out_numbers = calloc(count, sizeof(**out_numbers));
    if (*out_numbers == NULL)
        return err_new(ERR_NO_MEMORY, "vCPU state");
    *out_count = count;
    return NULL;
}

static struct err *save_table(const struct kvm_dtable *table, Ferry__CpuTable **out_state)
{
    TRY(STATE_MESSAGE_CREATE(&ferry__cpu_table__descriptor, out_state));
    (*out_state)->address = table->base;
    (*out_state)->limit = table->limit;
    return NULL;
}

static struct err *save_system_registers(struct vcpu_device *self, Ferry__VcpuState *state)
{
    struct kvm_sregs2 sregs;
    struct kvm_segment *segments[SEGMENT_COUNT];
    ProtobufCMessage **messages;

    TRY(kvm_vcpu_get_sregs(self->kvm, &sregs));
    TRY(state_repeated_create(&ferry__cpu_segment__descriptor, SEGMENT_COUNT, &state->n_segments,
                              &messages));
    state->segments = (Ferry__CpuSegment **)(void *)messages;
    segments_of(&sregs, segments);
    for (size_t i = 0; i < SEGMENT_COUNT; i++) {
        state->segments[i]->address = segments[i]->base;
        state->segments[i]->limit = segments[i]->limit;
        state->segments[i]->selector = segments[i]->selector;
        state->segments[i]->attributes = segment_attributes(segments[i]);
    }
    TRY(save_table(&sregs.gdt, &state->gdt));
    TRY(save_table(&sregs.idt, &state->idt));
    state->cr0 = sregs.cr0;
    state->cr2 = sregs.cr2;
    state->cr3 = sregs.cr3;
    state->cr4 = sregs.cr4;
    state->cr8 = sregs.cr8;
    state->efer = sregs.efer;
    state->apic_base = sregs.apic_base;
    if ((sregs.flags & KVM_SREGS2_FLAGS_PDPTRS_VALID) == 0)
        return NULL;
    TRY(numbers_create(4, &state->n_pdptrs, &state->pdptrs));
    memcpy(state->pdptrs, sregs.pdptrs, sizeof(sregs.pdptrs));
    return NULL;
}

static struct err *apply_system_registers(struct vcpu_device *self, const Ferry__VcpuState *state)
{
    struct kvm_sregs2 sregs = {
        .gdt = {.base = state->gdt->address, .limit = (uint16_t)state->gdt->limit},
        .idt = {.base = state->idt->address, .limit = (uint16_t)state->idt->limit},
        .cr0 = state->cr0,
        .cr2 = state->cr2,
        .cr3 = state->cr3,
        .cr4 = state->cr4,
        .cr8 = state->cr8,
        .efer = state->efer,
        .apic_base = state->apic_base,
    };
    struct kvm_segment *segments[SEGMENT_COUNT];

    segments_of(&sregs, segments);
    for (size_t i = 0; i < SEGMENT_COUNT; i++)
        *segments[i] = segment_from(state->segments[i]);
    if (state->n_pdptrs == 4) {
        sregs.flags = KVM_SREGS2_FLAGS_PDPTRS_VALID;
        memcpy(sregs.pdptrs, state->pdptrs, sizeof(sregs.pdptrs));
    }
    return kvm_vcpu_set_sregs(self->kvm, &sregs);
}

static struct err *save_registers(struct vcpu_device *self, Ferry__VcpuState *state)
{
    struct kvm_regs regs;
    __u64 *order[REGISTER_COUNT];

    TRY(kvm_vcpu_get_regs(self->kvm, &regs));
    TRY(numbers_create(REGISTER_COUNT, &state->n_registers, &state->registers));
    registers_of(&regs, order);
    for (size_t i = 0; i < REGISTER_COUNT; i++)
        state->registers[i] = *order[i];
    state->rip = regs.rip;
    state->rflags = regs.rflags;

    struct kvm_debugregs debug;
    TRY(kvm_vcpu_get_debugregs(self->kvm, &debug));
    TRY(numbers_create(4, &state->n_dr, &state->dr));
    memcpy(state->dr, debug.db, sizeof(debug.db));
    state->dr6 = debug.dr6;
    state->dr7 = debug.dr7;
    return NULL;
}

static struct err *apply_registers(struct vcpu_device *self, const Ferry__VcpuState *state)
{
    struct kvm_regs regs = {.rip = state->rip, .rflags = state->rflags};
    __u64 *order[REGISTER_COUNT];

    registers_of(&regs, order);
    for (size_t i = 0; i < REGISTER_COUNT; i++)
        *order[i] = state->registers[i];
    return kvm_vcpu_set_regs(self->kvm, &regs);
}

static struct err *save_extended(struct vcpu_device *self, Ferry__VcpuState *state)
{
    CLEANUP(cleanup_free) uint8_t *xsave = calloc(1, self->xsave_bytes);
    struct kvm_lapic_state lapic;

    if (xsave == NULL)
        return err_new(ERR_NO_MEMORY, "vCPU state");
    TRY(kvm_vcpu_get_xcr0(self->kvm, &state->xcr0));
    TRY(kvm_vcpu_get_xsave(self->kvm, xsave));
    TRY(state_bytes_set(&state->xsave, xsave, self->xsave_bytes));
    TRY(kvm_vcpu_get_lapic(self->kvm, &lapic));
    return state_bytes_set(&state->lapic, lapic.regs, LAPIC_BYTES);
}

static struct err *apply_extended(struct vcpu_device *self, const Ferry__VcpuState *state)
{
    CLEANUP(cleanup_free) uint8_t *xsave = calloc(1, self->xsave_bytes);
    struct kvm_lapic_state lapic;

    if (xsave == NULL)
        return err_new(ERR_NO_MEMORY, "vCPU state");
    memcpy(xsave, state->xsave.data, state->xsave.len);
    TRY(kvm_vcpu_set_xcr0(self->kvm, state->xcr0));
    TRY(kvm_vcpu_set_xsave(self->kvm, xsave));
    memcpy(lapic.regs, state->lapic.data, LAPIC_BYTES);
    return kvm_vcpu_set_lapic(self->kvm, &lapic);
}

static struct kvm_msrs *msrs_create(size_t count)
{
    struct kvm_msrs *msrs = calloc(1, sizeof(*msrs) + count * sizeof(msrs->entries[0]));

    if (msrs != NULL)
        msrs->nmsrs = (uint32_t)count;
    return msrs;
}

/* Reads the table's registers; those that this vCPU does not have leave the table. */
static struct err *read_msrs(struct vcpu_device *self, struct kvm_msrs *msrs)
{
    for (;;) {
        size_t done = 0;
        for (size_t i = 0; i < self->msr_count; i++)
            msrs->entries[i].index = self->msrs[i];
        msrs->nmsrs = (uint32_t)self->msr_count;
        TRY(kvm_vcpu_get_msrs(self->kvm, msrs, &done));
        if (done >= self->msr_count)
            return NULL;
        self->msr_count--;
        memmove(&self->msrs[done], &self->msrs[done + 1],
                (self->msr_count - done) * sizeof(self->msrs[0]));
    }
}

static struct err *save_msrs(struct vcpu_device *self, Ferry__VcpuState *state)
{
    CLEANUP(cleanup_free) struct kvm_msrs *msrs = msrs_create(self->msr_count);
    ProtobufCMessage **messages;

    if (msrs == NULL)
        return err_new(ERR_NO_MEMORY, "vCPU state");
    TRY(read_msrs(self, msrs));
    TRY(state_repeated_create(&ferry__cpu_msr__descriptor, self->msr_count, &state->n_msrs,
                              &messages));
    state->msrs = (Ferry__CpuMsr **)(void *)messages;
    for (size_t i = 0; i < self->msr_count; i++) {
        state->msrs[i]->index = msrs->entries[i].index;
        state->msrs[i]->value = msrs->entries[i].data;
    }
    return NULL;
}

/* The host refused the value. That is fine if the register says so, or holds it anyway. */
static struct err *judge_refusal(struct vcpu_device *self, const Ferry__CpuMsr *msr)
{
    CLEANUP(cleanup_free) struct kvm_msrs *one = msrs_create(1);
    size_t done = 0;

    if (one == NULL)
        return err_new(ERR_NO_MEMORY, "vCPU state");
    one->entries[0].index = msr->index;
    TRY(kvm_vcpu_get_msrs(self->kvm, one, &done));
    bool holds_it = done == 1 && one->entries[0].data == msr->value;
    /* A register that this host does not know, and that the guest never set, is not missed. */
    bool is_unused = done == 0 && msr->value == 0;
    if (holds_it || is_unused || msr_may_be_refused(msr->index))
        return NULL;
    return err_new(ERR_INCOMPATIBLE, "this host refuses value 0x%llx of MSR 0x%x",
                   (unsigned long long)msr->value, msr->index);
}

static struct err *apply_msrs(struct vcpu_device *self, const Ferry__VcpuState *state)
{
    CLEANUP(cleanup_free) struct kvm_msrs *msrs = msrs_create(state->n_msrs);
    size_t next = 0;

    if (msrs == NULL)
        return err_new(ERR_NO_MEMORY, "vCPU state");
    while (next < state->n_msrs) {
        size_t done = 0;
        size_t count = state->n_msrs - next;
        for (size_t i = 0; i < count; i++) {
            msrs->entries[i].index = state->msrs[next + i]->index;
            msrs->entries[i].data = state->msrs[next + i]->value;
        }
        msrs->nmsrs = (uint32_t)count;
        TRY(kvm_vcpu_set_msrs(self->kvm, msrs, &done));
        next += done;
        if (done < count) {
            TRY(judge_refusal(self, state->msrs[next]));
            next++;
        }
    }
    return NULL;
}

static struct err *save_events(struct vcpu_device *self, Ferry__VcpuState *state)
{
    struct kvm_vcpu_events events;
    Ferry__CpuEvents *out;

    TRY(kvm_vcpu_get_events(self->kvm, &events));
    TRY(STATE_MESSAGE_CREATE(&ferry__cpu_events__descriptor, &state->events));
    out = state->events;
    out->exception_injected = events.exception.injected != 0;
    out->exception_pending = events.exception.pending != 0;
    out->exception_vector = events.exception.nr;
    out->exception_has_error_code = events.exception.has_error_code != 0;
    out->exception_error_code = events.exception.error_code;
    out->exception_has_payload = events.exception_has_payload != 0;
    out->exception_payload = events.exception_payload;
    out->interrupt_injected = events.interrupt.injected != 0;
    out->interrupt_vector = events.interrupt.nr;
    out->interrupt_is_soft = events.interrupt.soft != 0;
    out->interrupt_shadow = events.interrupt.shadow;
    out->nmi_injected = events.nmi.injected != 0;
    out->nmi_pending = events.nmi.pending != 0;
    out->nmi_masked = events.nmi.masked != 0;
    out->sipi_vector = events.sipi_vector;
    out->in_smm = events.smi.smm != 0;
    out->smi_pending = events.smi.pending != 0;
    out->smi_inside_nmi = events.smi.smm_inside_nmi != 0;
    out->init_latched = events.smi.latched_init != 0;
    return NULL;
}

static struct err *apply_events(struct vcpu_device *self, const Ferry__CpuEvents *state)
{
    /* NMI pending and SIPI vector are only taken over when the flags say that they are there; the
     * payload needs a capability that is not enabled, and SMM is not offered. */
    struct kvm_vcpu_events events = {
        .exception = {.injected = state->exception_injected || state->exception_pending,
                      .nr = (uint8_t)state->exception_vector,
                      .has_error_code = state->exception_has_error_code != 0,
                      .error_code = state->exception_error_code},
        .interrupt = {.injected = state->interrupt_injected != 0,
                      .nr = (uint8_t)state->interrupt_vector,
                      .soft = state->interrupt_is_soft != 0,
                      .shadow = (uint8_t)state->interrupt_shadow},
        .nmi = {.injected = state->nmi_injected != 0,
                .pending = state->nmi_pending != 0,
                .masked = state->nmi_masked != 0},
        .sipi_vector = state->sipi_vector,
        .flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR |
                 KVM_VCPUEVENT_VALID_SHADOW,
    };
    return kvm_vcpu_set_events(self->kvm, &events);
}

static const uint32_t run_states[] = {
    [FERRY__CPU_RUN_STATE__CPU_RUN_STATE_RUNNABLE] = KVM_MP_STATE_RUNNABLE,
    [FERRY__CPU_RUN_STATE__CPU_RUN_STATE_UNINITIALIZED] = KVM_MP_STATE_UNINITIALIZED,
    [FERRY__CPU_RUN_STATE__CPU_RUN_STATE_INIT_RECEIVED] = KVM_MP_STATE_INIT_RECEIVED,
    [FERRY__CPU_RUN_STATE__CPU_RUN_STATE_HALTED] = KVM_MP_STATE_HALTED,
    [FERRY__CPU_RUN_STATE__CPU_RUN_STATE_SIPI_RECEIVED] = KVM_MP_STATE_SIPI_RECEIVED,
    [FERRY__CPU_RUN_STATE__CPU_RUN_STATE_RESET_HOLD] = KVM_MP_STATE_AP_RESET_HOLD,
};

static struct err *save_run_state(struct vcpu_device *self, Ferry__VcpuState *state)
{
    uint32_t mp_state = 0;
    TRY(kvm_vcpu_get_mp_state(self->kvm, &mp_state));
    for (size_t i = 0; i < ARRAY_COUNT(run_states); i++) {
        if (run_states[i] == mp_state) {
            state->run_state = (Ferry__CpuRunState)i;
            return NULL;
        }
    }
    return err_new(ERR_INCOMPATIBLE, "vCPU in a run state (%u) that can not be saved", mp_state);
}

static struct err *fill_state(struct vcpu_device *self, Ferry__VcpuState *state)
{
    state->apic_id = self->base.instance;
    /* Reading the run state first lets KVM take in an INIT or SIPI that is under way. */
    TRY(save_run_state(self, state));
    TRY(save_system_registers(self, state));
    TRY(save_registers(self, state));
    TRY(save_extended(self, state));
    TRY(save_msrs(self, state));
    return save_events(self, state);
}

static struct err *vcpu_save(struct device *device, ProtobufCMessage **out_state)
{
    struct vcpu_device *self = CONTAINER_OF(device, struct vcpu_device, base);
    Ferry__VcpuState *state = NULL;

    TRY(STATE_MESSAGE_CREATE(&ferry__vcpu_state__descriptor, &state));
    return state_message_finish(fill_state(self, state), &state->base, out_state);
}

static struct err *validate_xsave(const Ferry__VcpuState *state, uint64_t xcr0_allowed,
                                  size_t xsave_bytes)
{
    if (state->xsave.len < XSAVE_BYTES_MIN || state->xsave.len > xsave_bytes)
        return err_new(ERR_INVALID, "extended state of %zu bytes; this host takes %u..%zu",
                       state->xsave.len, XSAVE_BYTES_MIN, xsave_bytes);
    struct reader in = reader_of(state->xsave.data + XSTATE_BV_AT, 16);
    uint64_t xstate_bv = reader_le64(&in);
    uint64_t xcomp_bv = reader_le64(&in);
    TRY(state_check_bits("xcr0", state->xcr0, xcr0_allowed));
    TRY(state_check_bits("xstate_bv", xstate_bv, xcr0_allowed | 3));
    return state_check_bits("xcomp_bv", xcomp_bv, 0);
}

static struct err *validate_events(const Ferry__CpuEvents *events)
{
    TRY(state_check_max("exception_vector", events->exception_vector, 31));
    TRY(state_check_max("interrupt_vector", events->interrupt_vector, 255));
    TRY(state_check_max("interrupt_shadow", events->interrupt_shadow, 3));
    TRY(state_check_max("sipi_vector", events->sipi_vector, 255));
    if (events->in_smm || events->smi_pending)
        return err_new(ERR_INCOMPATIBLE, "vCPU in system management mode");
    return NULL;
}

struct err *vcpu_state_validate(const Ferry__VcpuState *state, uint64_t xcr0_allowed,
                                size_t xsave_bytes)
{
    if (state->n_registers != REGISTER_COUNT || state->n_segments != SEGMENT_COUNT ||
        state->n_dr != 4 || (state->n_pdptrs != 0 && state->n_pdptrs != 4) ||
        state->lapic.len != LAPIC_BYTES)
        return err_new(ERR_INVALID, "vCPU state with missing registers");
    if (state->gdt == NULL || state->idt == NULL || state->events == NULL)
        return err_new(ERR_INVALID, "vCPU state with missing tables or events");
    for (size_t i = 0; i < SEGMENT_COUNT; i++) {
        TRY(state_check_max("selector", state->segments[i]->selector, UINT16_MAX));
        TRY(state_check_bits("segment attributes", state->segments[i]->attributes, SEGMENT_BITS));
    }
    TRY(state_check_max("gdt limit", state->gdt->limit, UINT16_MAX));
    TRY(state_check_max("idt limit", state->idt->limit, UINT16_MAX));
    TRY(state_check_max("cr8", state->cr8, 15));
    TRY(state_check_max("msrs", state->n_msrs, MSR_COUNT_MAX));
    if ((size_t)state->run_state >= ARRAY_COUNT(run_states))
        return err_new(ERR_INVALID, "vCPU run state %d is not known", (int)state->run_state);
    TRY(validate_events(state->events));
    return validate_xsave(state, xcr0_allowed, xsave_bytes);
}

static struct err *vcpu_validate(struct device *device, uint32_t version,
                                 const ProtobufCMessage *message)
{
    struct vcpu_device *self = CONTAINER_OF(device, struct vcpu_device, base);
    const Ferry__VcpuState *state = STATE_MESSAGE(Ferry__VcpuState, message);

    (void)version;
    if (state->apic_id != device->instance)
        return err_new(ERR_INVALID, "vCPU %u with APIC id %u", device->instance, state->apic_id);
    return vcpu_state_validate(state, self->xcr0_allowed, self->xsave_bytes);
}

static struct err *vcpu_apply(struct device *device, const ProtobufCMessage *message)
{
    struct vcpu_device *self = CONTAINER_OF(device, struct vcpu_device, base);
    const Ferry__VcpuState *state = STATE_MESSAGE(Ferry__VcpuState, message);
    struct kvm_debugregs debug = {.dr6 = state->dr6, .dr7 = state->dr7};

    TRY(apply_system_registers(self, state));
    TRY(apply_registers(self, state));
    TRY(apply_extended(self, state));
    TRY(apply_msrs(self, state));
    memcpy(debug.db, state->dr, sizeof(debug.db));
    TRY(kvm_vcpu_set_debugregs(self->kvm, &debug));
    TRY(kvm_vcpu_set_mp_state(self->kvm, run_states[state->run_state]));
    return apply_events(self, state->events);
}

static void vcpu_reset(struct device *device)
{
    struct vcpu_device *self = CONTAINER_OF(device, struct vcpu_device, base);

    /* The vCPU has accepted this very state before. */
    err_free(vcpu_apply(device, self->initial));
}

static struct err *vcpu_start(struct device *device)
{
    (void)device;
    return NULL;
}

static void vcpu_stop(struct device *device)
{
    (void)device;
}

static void vcpu_destroy(struct device *device)
{
    struct vcpu_device *self = CONTAINER_OF(device, struct vcpu_device, base);

    if (self->initial != NULL)
        protobuf_c_message_free_unpacked(self->initial, NULL);
    free(self->msrs);
    free(self);
}

static const struct device_ops vcpu_device_ops = {
    .section = "vcpu",
    .version = VCPU_VERSION,
    .state_type = &ferry__vcpu_state__descriptor,
    .save = vcpu_save,
    .validate = vcpu_validate,
    .apply = vcpu_apply,
    .reset = vcpu_reset,
    .start = vcpu_start,
    .stop = vcpu_stop,
    .destroy = vcpu_destroy,
};

static struct err *choose_msrs(struct vcpu_device *self, struct kvm_vm *vm)
{
    CLEANUP(cleanup_free) uint32_t *listed = NULL;
    size_t listed_count = 0;

    TRY(kvm_vm_msr_indices(vm, &listed, &listed_count));
    self->msrs = calloc(MSR_COUNT_MAX, sizeof(*self->msrs));
    if (self->msrs == NULL)
        return err_new(ERR_NO_MEMORY, "vCPU");
    self->msr_count = msr_table_choose(listed, listed_count, self->msrs);
    return NULL;
}

struct err *vcpu_device_create(struct device_host *host, struct kvm_vm *vm, struct kvm_vcpu *vcpu,
                               unsigned index, const struct kvm_cpuid2 *cpuid,
                               struct device **out_device)
{
    struct vcpu_device *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return err_new(ERR_NO_MEMORY, "vCPU");
    self->base = (struct device){.ops = &vcpu_device_ops, .host = host, .instance = index};
    self->kvm = vcpu;
    self->xsave_bytes = kvm_vm_xsave_bytes(vm);
    self->xcr0_allowed = cpuid_xcr0(cpuid);

    struct err *err = choose_msrs(self, vm);
    if (err == NULL)
        err = vcpu_save(&self->base, &self->initial);
    if (err != NULL) {
        vcpu_destroy(&self->base);
        return err_wrap(err, "vCPU %u", index);
    }
    *out_device = &self->base;
    return NULL;
}
