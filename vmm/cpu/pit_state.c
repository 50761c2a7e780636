/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pit_state.c - see pit_state.h.
 *
 * KVM counts from the host's monotonic time at which a count was loaded; the message says how long
 * ago that was, so that a count goes on where it stood, on another host too.
 * Tested by: tests/system, which saves and restores guests that the timer drives.
 */
#include "vmm/cpu/pit_state.h"

#include <linux/kvm.h>
#include <stdlib.h>

#include "base/checked_math.h"
#include "base/clock.h"
#include "proto/device_state.pb-c.h"
#include "vmm/devices/state_message.h"
#include "vmm/kvm/kvm_vm.h"

#define PIT_VERSION  1u
#define PIT_CHANNELS 3u
#define COUNT_MAX    65536u

/* The registers of a channel, named alike by the message and by KVM. */
#define CHANNEL_FIELDS(X)                                                                          \
    X(latched_count, UINT16_MAX)                                                                   \
    X(count_latched, UINT8_MAX)                                                                    \
    X(status_latched, UINT8_MAX)                                                                   \
    X(status, UINT8_MAX)                                                                           \
    X(read_state, UINT8_MAX)                                                                       \
    X(write_state, UINT8_MAX)                                                                      \
    X(write_latch, UINT8_MAX)                                                                      \
    X(rw_mode, UINT8_MAX)                                                                          \
    X(mode, UINT8_MAX)                                                                             \
    X(bcd, UINT8_MAX)                                                                              \
    X(gate, UINT8_MAX)

struct pit_device {
    struct device base;
    struct kvm_vm *vm;
    ProtobufCMessage *initial; /* owned */
};

static struct err *fill_state(struct pit_device *self, Ferry__PitState *state)
{
    struct kvm_pit_state2 pit = {0};
    ProtobufCMessage **messages;

    TRY(kvm_vm_get_pit(self->vm, &pit));
    int64_t now = (int64_t)clock_monotonic_ns();
    TRY(state_repeated_create(&ferry__pit_channel_state__descriptor, PIT_CHANNELS,
                              &state->n_channels, &messages));
    state->channels = (Ferry__PitChannelState **)(void *)messages;
    for (size_t i = 0; i < PIT_CHANNELS; i++) {
        const struct kvm_pit_channel_state *from = &pit.channels[i];
        Ferry__PitChannelState *channel = state->channels[i];
        channel->count = from->count;
#define X(field, max) channel->field = from->field;
        CHANNEL_FIELDS(X)
#undef X
        channel->running_ns =
            now > from->count_load_time ? (uint64_t)(now - from->count_load_time) : 0;
    }
    state->hpet_legacy = (pit.flags & KVM_PIT_FLAGS_HPET_LEGACY) != 0;
    state->speaker_on = (pit.flags & KVM_PIT_FLAGS_SPEAKER_DATA_ON) != 0;
    return NULL;
}

static struct err *pit_save(struct device *device, ProtobufCMessage **out_state)
{
    struct pit_device *self = CONTAINER_OF(device, struct pit_device, base);
    Ferry__PitState *state = NULL;

    TRY(STATE_MESSAGE_CREATE(&ferry__pit_state__descriptor, &state));
    return state_message_finish(fill_state(self, state), &state->base, out_state);
}

static struct err *pit_validate(struct device *device, uint32_t version,
                                const ProtobufCMessage *message)
{
    const Ferry__PitState *state = STATE_MESSAGE(Ferry__PitState, message);

    (void)device;
    (void)version;
    if (state->n_channels != PIT_CHANNELS)
        return err_new(ERR_INVALID, "timer chip with %zu channels", state->n_channels);
    for (size_t i = 0; i < PIT_CHANNELS; i++) {
        const Ferry__PitChannelState *channel = state->channels[i];
        TRY(state_check_max("count", channel->count, COUNT_MAX));
        TRY(state_check_max("running_ns", channel->running_ns, INT64_MAX));
#define X(field, max) TRY(state_check_max(#field, channel->field, max));
        CHANNEL_FIELDS(X)
#undef X
    }
    return NULL;
}

static struct err *pit_apply(struct device *device, const ProtobufCMessage *message)
{
    struct pit_device *self = CONTAINER_OF(device, struct pit_device, base);
    const Ferry__PitState *state = STATE_MESSAGE(Ferry__PitState, message);
    struct kvm_pit_state2 pit = {
        .flags = (state->hpet_legacy ? KVM_PIT_FLAGS_HPET_LEGACY : 0u) |
                 (state->speaker_on ? KVM_PIT_FLAGS_SPEAKER_DATA_ON : 0u),
    };

    int64_t now = (int64_t)clock_monotonic_ns();
    for (size_t i = 0; i < PIT_CHANNELS; i++) {
        const Ferry__PitChannelState *channel = state->channels[i];
        struct kvm_pit_channel_state *to = &pit.channels[i];
        to->count = channel->count;
#define X(field, max) to->field = (__typeof__(to->field))channel->field;
        CHANNEL_FIELDS(X)
#undef X
        to->count_load_time = now - (int64_t)channel->running_ns;
    }
    return kvm_vm_set_pit(self->vm, &pit);
}

static void pit_reset(struct device *device)
{
    struct pit_device *self = CONTAINER_OF(device, struct pit_device, base);

    /* The chip has held this very state before. */
    err_free(pit_apply(device, self->initial));
}

static struct err *pit_start(struct device *device)
{
    (void)device;
    return NULL;
}

static void pit_stop(struct device *device)
{
    (void)device;
}

static void pit_destroy(struct device *device)
{
    struct pit_device *self = CONTAINER_OF(device, struct pit_device, base);

    if (self->initial != NULL)
        protobuf_c_message_free_unpacked(self->initial, NULL);
    free(self);
}

static const struct device_ops pit_device_ops = {
    .section = "pit",
    .version = PIT_VERSION,
    .state_type = &ferry__pit_state__descriptor,
    .save = pit_save,
    .validate = pit_validate,
    .apply = pit_apply,
    .reset = pit_reset,
    .start = pit_start,
    .stop = pit_stop,
    .destroy = pit_destroy,
};

struct err *pit_device_create(struct device_host *host, struct kvm_vm *vm,
                              struct device **out_device)
{
    struct pit_device *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return err_new(ERR_NO_MEMORY, "timer chip");
    self->base = (struct device){.ops = &pit_device_ops, .host = host};
    self->vm = vm;

    struct err *err = pit_save(&self->base, &self->initial);
    if (err != NULL) {
        pit_destroy(&self->base);
        return err;
    }
    *out_device = &self->base;
    return NULL;
}
