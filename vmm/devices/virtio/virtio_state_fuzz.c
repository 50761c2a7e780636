/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_state_fuzz.c - a virtio device's state from a hostile peer: unpacked, validated, applied
 * when it is valid, and then run, over memory that is the rest of the input.
 * Tested by: the replay of tests/fuzz/corpus/virtio_state.
 */
#include <stdlib.h>

#include "base/assert.h"
#include "base/event_loop.h"
#include "proto/device_state.pb-c.h"
#include "vmm/bus/pci_bus.h"
#include "vmm/devices/device_host_fake.h"
#include "vmm/devices/virtio/virtio_rng.h"
#include "vmm/memory/guest_memory.h"

#define RAM_BYTES MIB

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void load(struct device *rng, const uint8_t *data, size_t size)
{
    ProtobufCMessage *state = protobuf_c_message_unpack(rng->ops->state_type, NULL, size, data);
    if (state == NULL)
        return;
    struct err *err = rng->ops->validate(rng, rng->ops->version, state);
    if (err == NULL) {
        ASSERT(rng->ops->apply(rng, state) == NULL);
        ASSERT(rng->ops->start(rng) == NULL);
        for (unsigned i = 0; i < 4; i++)
            ASSERT(event_loop_turn(rng->host->loop, 0) == NULL);
        rng->ops->stop(rng);
    }
    err_free(err);
    protobuf_c_message_free_unpacked(state, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct device_host_fake fake;
    struct guest_memory *memory = NULL;
    struct pci_bus *bus = NULL;
    struct device *rng = NULL;

    if (size < 2 || size > RAM_BYTES)
        return 0;
    size_t state_bytes = ((size_t)data[0] << 8 | data[1]) % (size - 1);
    struct err *err = guest_memory_create(RAM_BYTES, RAM_BYTES, &memory);
    ASSERT(err == NULL);
    ASSERT(guest_write(memory, gpa(0), data + 2 + state_bytes, size - 2 - state_bytes));
    device_host_fake_init(&fake, memory);
    ASSERT(pci_bus_create(&fake.host, &bus) == NULL);
    ASSERT(virtio_rng_create(&fake.host, bus, 0, &rng) == NULL);

    load(rng, data + 2, state_bytes);

    rng->ops->destroy(rng);
    struct device *bus_device = pci_bus_device(bus);
    bus_device->ops->destroy(bus_device);
    device_host_fake_finish(&fake);
    guest_memory_destroy(memory);
    return 0;
}
