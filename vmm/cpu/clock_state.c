/* SPDX-License-Identifier: Apache-2.0 */
/*
 * clock_state.c - see clock_state.h.
 *
 * kvmclock is set to what it was plus the real time that has passed, which KVM itself adds when it
 * is told the real time of the save, and never less: guest time does not run backwards. The TSCs
 * are advanced by as much as kvmclock then has been, through each vCPU's offset. A host that does
 * not know offsets in terms of its clock (an unstable TSC) gets the TSC's value set instead; one
 * that ignores offsets (it shows guests its own TSC) is fine as long as the guest stays on it.
 */
#include "vmm/cpu/clock_state.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "proto/device_state.pb-c.h"
#include "vmm/cpu/msr_table.h"
#include "vmm/cpu/vcpu_set.h"
#include "vmm/devices/state_message.h"
#include "vmm/kvm/kvm_clock.h"
#include "vmm/kvm/kvm_vcpu.h"
#include "vmm/kvm/kvm_vm.h"

#define CLOCK_VERSION 1u
#define KHZ_MAX       ((uint64_t)100 * 1000 * 1000)
#define SAME_PPM      250u   /* KVM's own tolerance */
#define TOLERATED_PPM 10000u /* calibration of one and the same CPU may differ by this much */

struct clock_device {
    struct device base;
    struct kvm_vm *vm;
    struct vcpu_set *vcpus;
};

enum tsc_verdict tsc_judge(uint64_t guest_khz, uint64_t host_khz)
{
    uint64_t difference = guest_khz > host_khz ? guest_khz - host_khz : host_khz - guest_khz;

    if (difference * 1000000 <= host_khz * SAME_PPM)
        return TSC_SAME;
    return difference * 1000000 <= host_khz * TOLERATED_PPM ? TSC_TOLERATE : TSC_SCALE;
}

uint64_t tsc_advance(uint64_t tsc, uint64_t elapsed_ns, uint64_t khz)
{
    __extension__ typedef unsigned __int128 u128;

    return tsc + (uint64_t)((u128)elapsed_ns * khz / 1000000u);
}

static struct err *access_tsc(struct kvm_vcpu *vcpu, bool is_write, uint64_t *inout_tsc)
{
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry entry;
    } one = {.head.nmsrs = 1};
    size_t done = 0;

    one.entry.index = MSR_TSC;
    one.entry.data = *inout_tsc;
    TRY(is_write ? kvm_vcpu_set_msrs(vcpu, &one.head, &done)
                 : kvm_vcpu_get_msrs(vcpu, &one.head, &done));
    if (done != 1)
        return err_new(ERR_IO, "KVM: the TSC can not be %s", is_write ? "set" : "read");
    *inout_tsc = one.entry.data;
    return NULL;
}

static struct err *read_tsc(struct kvm_vcpu *vcpu, uint64_t host_tsc, uint64_t *out_tsc)
{
    uint64_t offset = 0;

    *out_tsc = 0;
    if (host_tsc == 0)
        return access_tsc(vcpu, false, out_tsc);
    TRY(kvm_vcpu_get_tsc_offset(vcpu, &offset));
    *out_tsc = host_tsc + offset;
    return NULL;
}

static struct err *fill_state(struct clock_device *self, Ferry__ClockState *state)
{
    struct kvm_clock_reading reading;
    unsigned vcpus = vcpu_set_count(self->vcpus);

    TRY(kvm_clock_get(self->vm, &reading));
    state->kvmclock_ns = reading.clock_ns;
    /* Without KVM's own reading of both, the host's clock a moment later must do. */
    state->realtime_ns = reading.realtime_ns != 0 ? reading.realtime_ns : clock_realtime_ns();
    state->host_tsc = reading.host_tsc;
    state->tsc_khz = kvm_vcpu_tsc_khz(vcpu_set_kvm(self->vcpus, 0));
    state->guest_tsc = calloc(vcpus, sizeof(*state->guest_tsc));
    if (state->guest_tsc == NULL)
        return err_new(ERR_NO_MEMORY, "clock state");
    state->n_guest_tsc = vcpus;
    for (unsigned i = 0; i < vcpus; i++)
        TRY(read_tsc(vcpu_set_kvm(self->vcpus, i), reading.host_tsc, &state->guest_tsc[i]));
    return NULL;
}

static struct err *clock_save(struct device *device, ProtobufCMessage **out_state)
{
    struct clock_device *self = CONTAINER_OF(device, struct clock_device, base);
    Ferry__ClockState *state = NULL;

    TRY(STATE_MESSAGE_CREATE(&ferry__clock_state__descriptor, &state));
    return state_message_finish(fill_state(self, state), &state->base, out_state);
}

static struct err *clock_validate(struct device *device, uint32_t version,
                                  const ProtobufCMessage *message)
{
    struct clock_device *self = CONTAINER_OF(device, struct clock_device, base);
    const Ferry__ClockState *state = STATE_MESSAGE(Ferry__ClockState, message);

    (void)version;
    if (state->n_guest_tsc != vcpu_set_count(self->vcpus))
        return err_new(ERR_INVALID, "TSCs of %zu vCPUs", state->n_guest_tsc);
    if (state->tsc_khz == 0 || state->tsc_khz > KHZ_MAX)
        return err_new(ERR_INVALID, "TSC of %llu kHz", (unsigned long long)state->tsc_khz);
    if (state->kvmclock_ns > INT64_MAX || state->realtime_ns > INT64_MAX)
        return err_new(ERR_INVALID, "clock out of range");
    return NULL;
}

static struct err *apply_frequency(struct clock_device *self, uint64_t guest_khz)
{
    uint32_t host_khz = kvm_vcpu_tsc_khz(vcpu_set_kvm(self->vcpus, 0));
    enum tsc_verdict verdict = tsc_judge(guest_khz, host_khz);
    for (unsigned i = 0; verdict != TSC_SAME && i < vcpu_set_count(self->vcpus); i++) {
        struct err *err = kvm_vcpu_set_tsc_khz(vcpu_set_kvm(self->vcpus, i), (uint32_t)guest_khz);
        if (err != NULL && verdict == TSC_SCALE)
            return err_wrap(err,
                            "the machine's TSC runs at %llu kHz, this host's at %u kHz, and "
                            "this host can not scale it",
                            (unsigned long long)guest_khz, host_khz);
        if (err != NULL && i == 0)
            log_warning("TSC frequency differs", "guest_khz=%llu host_khz=%u",
                        (unsigned long long)guest_khz, host_khz);
        err_free(err);
    }
    return NULL;
}

static struct err *apply_tscs(struct clock_device *self, const Ferry__ClockState *state)
{
    struct kvm_clock_reading now;
    TRY(kvm_clock_get(self->vm, &now));
    uint64_t elapsed_ns = now.clock_ns > state->kvmclock_ns ? now.clock_ns - state->kvmclock_ns : 0;

    for (unsigned i = 0; i < vcpu_set_count(self->vcpus); i++) {
        struct kvm_vcpu *vcpu = vcpu_set_kvm(self->vcpus, i);
        uint64_t tsc = tsc_advance(state->guest_tsc[i], elapsed_ns, state->tsc_khz);
        if (now.host_tsc != 0)
            TRY(kvm_vcpu_set_tsc_offset(vcpu, tsc - now.host_tsc));
        else
            TRY(access_tsc(vcpu, true, &tsc));
    }
    return NULL;
}

static struct err *clock_apply(struct device *device, const ProtobufCMessage *message)
{
    struct clock_device *self = CONTAINER_OF(device, struct clock_device, base);
    const Ferry__ClockState *state = STATE_MESSAGE(Ferry__ClockState, message);
    uint64_t now = clock_realtime_ns();
    uint64_t gap_ns =
        state->realtime_ns != 0 && now > state->realtime_ns ? now - state->realtime_ns : 0;

    TRY(apply_frequency(self, state->tsc_khz));
    struct err *err = kvm_clock_set(self->vm, state->kvmclock_ns, state->realtime_ns);
    if (err != NULL) {
        /* A clock that is not tied to the TSC takes no real time: add the gap here. */
        err_free(err);
        TRY(kvm_clock_set(self->vm, state->kvmclock_ns + gap_ns, 0));
    }
    return apply_tscs(self, state);
}

static void clock_reset(struct device *device)
{
    (void)device; /* time goes on through a reset */
}

static struct err *clock_start(struct device *device)
{
    (void)device;
    return NULL;
}

static void clock_stop(struct device *device)
{
    (void)device;
}

static void clock_destroy(struct device *device)
{
    free(CONTAINER_OF(device, struct clock_device, base));
}

static const struct device_ops clock_device_ops = {
    .section = "clock",
    .version = CLOCK_VERSION,
    .state_type = &ferry__clock_state__descriptor,
    .save = clock_save,
    .validate = clock_validate,
    .apply = clock_apply,
    .reset = clock_reset,
    .start = clock_start,
    .stop = clock_stop,
    .destroy = clock_destroy,
};

struct err *clock_device_create(struct device_host *host, struct kvm_vm *vm, struct vcpu_set *vcpus,
                                struct device **out_device)
{
    struct clock_device *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return err_new(ERR_NO_MEMORY, "clock");
    self->base = (struct device){.ops = &clock_device_ops, .host = host};
    self->vm = vm;
    self->vcpus = vcpus;
    *out_device = &self->base;
    return NULL;
}
