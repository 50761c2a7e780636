/* SPDX-License-Identifier: Apache-2.0 */
/*
 * device_host_fake.c - what a machine gives its devices, without a machine.
 *
 * Tested by: the tests of every device.
 */
#include "vmm/devices/device_host_fake.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/event_loop.h"
#include "vmm/bus/io_bus.h"

static void note_reset(void *machine)
{
    struct device_host_fake *fake = machine;
    fake->reset_requests++;
}

static void note_power_off(void *machine)
{
    struct device_host_fake *fake = machine;
    fake->power_off_requests++;
}

void device_host_fake_init(struct device_host_fake *fake, struct guest_memory *memory)
{
    *fake = (struct device_host_fake){
        .host = {.memory = memory,
                 .lock = &fake->lock,
                 .request_reset = note_reset,
                 .request_power_off = note_power_off,
                 .machine = fake},
    };
    lock_init(&fake->lock, LOCK_DEVICES);
    ASSERT(event_loop_create(&fake->host.loop) == NULL);
    ASSERT(io_bus_create(&fake->host.ports) == NULL);
    ASSERT(io_bus_create(&fake->host.mmio) == NULL);
    ASSERT(interrupts_fake_create(&fake->interrupts) == NULL);
    fake->host.interrupts = interrupts_fake_interrupts(fake->interrupts);
}

void device_host_fake_finish(struct device_host_fake *fake)
{
    interrupts_fake_destroy(fake->interrupts);
    io_bus_destroy(fake->host.mmio);
    io_bus_destroy(fake->host.ports);
    event_loop_destroy(fake->host.loop);
    lock_finish(&fake->lock);
}

uint32_t device_host_fake_in(struct device_host_fake *fake, uint16_t port, size_t len)
{
    uint8_t data[4] = {0};

    ASSERT(len <= sizeof(data));
    lock_acquire(&fake->lock);
    io_bus_read(fake->host.ports, port, data, len);
    lock_release(&fake->lock);
    return (uint32_t)data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16 |
           (uint32_t)data[3] << 24;
}

void device_host_fake_out(struct device_host_fake *fake, uint16_t port, uint32_t value, size_t len)
{
    uint8_t data[4] = {(uint8_t)value, (uint8_t)(value >> 8), (uint8_t)(value >> 16),
                       (uint8_t)(value >> 24)};

    ASSERT(len <= sizeof(data));
    lock_acquire(&fake->lock);
    io_bus_write(fake->host.ports, port, data, len);
    lock_release(&fake->lock);
}

static struct err *message_copy(const ProtobufCMessage *message, ProtobufCMessage **out_copy)
{
    size_t len = protobuf_c_message_get_packed_size(message);
    uint8_t *packed = malloc(len + 1);
    ASSERT(packed != NULL);

    ASSERT(protobuf_c_message_pack(message, packed) == len);
    *out_copy = protobuf_c_message_unpack(message->descriptor, NULL, len, packed);
    free(packed);
    return *out_copy == NULL ? err_new(ERR_INVALID, "the saved message does not unpack") : NULL;
}

struct err *device_host_fake_move(struct device *from, struct device *to)
{
    ProtobufCMessage *saved = NULL;
    ProtobufCMessage *loaded = NULL;

    TRY(from->ops->save(from, &saved));
    struct err *err = message_copy(saved, &loaded);
    if (err == NULL)
        err = to->ops->validate(to, from->ops->version, loaded);
    if (err == NULL)
        err = to->ops->apply(to, loaded);
    protobuf_c_message_free_unpacked(saved, NULL);
    if (loaded != NULL)
        protobuf_c_message_free_unpacked(loaded, NULL);
    return err;
}
