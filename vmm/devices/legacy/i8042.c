/* SPDX-License-Identifier: Apache-2.0 */
/*
 * i8042.c - answers a driver's probing at once, and resets the machine when it is told to.
 *
 * Commands that have an answer leave it in the one-byte output buffer. Nothing is connected:
 * bytes for a keyboard or mouse are dropped, and no interrupt is ever raised.
 */
#include "vmm/devices/legacy/i8042.h"

#include <stdlib.h>

#include "base/checked_math.h"
#include "base/cleanup.h"
#include "proto/device_state.pb-c.h"
#include "vmm/bus/io_bus.h"
#include "vmm/bus/platform_map.h"
#include "vmm/devices/state_message.h"

#define STATUS_OUTPUT_FULL 0x01u
#define STATUS_SYSTEM      0x04u /* self test passed */
#define STATUS_UNLOCKED    0x10u /* the key of the keyboard lock */

#define COMMAND_READ_CONFIG  0x20u
#define COMMAND_WRITE_CONFIG 0x60u
#define COMMAND_TEST_MOUSE   0xa9u
#define COMMAND_SELF_TEST    0xaau
#define COMMAND_TEST_PORT    0xabu
#define COMMAND_READ_OUTPUT  0xd0u
#define COMMAND_WRITE_OUTPUT 0xd1u
#define COMMAND_LOOP_MOUSE   0xd3u
#define COMMAND_PULSE_RESET  0xfeu

#define ANSWER_SELF_TEST_PASSED 0x55u
#define ANSWER_PORT_PASSED      0x00u
#define ANSWER_PORT_DEAD        0x01u /* its clock line is stuck */
#define OUTPUT_NOT_RESET        0x01u
#define OUTPUT_A20              0x02u

struct i8042 {
    struct device base;
    struct io_range *data_range;    /* owned by the bus */
    struct io_range *command_range; /* owned by the bus */
    uint8_t config;
    uint8_t command; /* waits for its data byte; 0: none */
    uint8_t output;
    bool has_output;
};

static struct i8042 *i8042_of(struct device *device)
{
    return CONTAINER_OF(device, struct i8042, base);
}

static void answer(struct i8042 *i8042, uint8_t byte)
{
    i8042->output = byte;
    i8042->has_output = true;
}

static void data_read(void *context, uint64_t offset, uint8_t *out_data, size_t len)
{
    struct i8042 *i8042 = context;

    (void)offset;
    (void)len;
    out_data[0] = i8042->output;
    i8042->has_output = false;
}

static void data_write(void *context, uint64_t offset, const uint8_t *data, size_t len)
{
    struct i8042 *i8042 = context;
    struct device_host *host = i8042->base.host;

    (void)offset;
    (void)len;
    if (i8042->command == COMMAND_WRITE_CONFIG)
        i8042->config = data[0];
    else if (i8042->command == COMMAND_LOOP_MOUSE)
        answer(i8042, data[0]); /* as if from the keyboard: there is no mouse port */
    else if (i8042->command == COMMAND_WRITE_OUTPUT && (data[0] & OUTPUT_NOT_RESET) == 0)
        host->request_reset(host->machine);
    i8042->command = 0;
}

static void command_read(void *context, uint64_t offset, uint8_t *out_data, size_t len)
{
    const struct i8042 *i8042 = context;

    (void)offset;
    (void)len;
    out_data[0] = STATUS_SYSTEM | STATUS_UNLOCKED | (i8042->has_output ? STATUS_OUTPUT_FULL : 0);
}

static void command_write(void *context, uint64_t offset, const uint8_t *data, size_t len)
{
    struct i8042 *i8042 = context;
    struct device_host *host = i8042->base.host;

    (void)offset;
    (void)len;
    i8042->command = 0;
    switch (data[0]) {
    case COMMAND_READ_CONFIG: answer(i8042, i8042->config); break;
    case COMMAND_SELF_TEST: answer(i8042, ANSWER_SELF_TEST_PASSED); break;
    case COMMAND_TEST_MOUSE: answer(i8042, ANSWER_PORT_DEAD); break;
    case COMMAND_TEST_PORT: answer(i8042, ANSWER_PORT_PASSED); break;
    case COMMAND_READ_OUTPUT: answer(i8042, OUTPUT_NOT_RESET | OUTPUT_A20); break;
    case COMMAND_WRITE_CONFIG:
    case COMMAND_WRITE_OUTPUT:
    case COMMAND_LOOP_MOUSE: i8042->command = data[0]; break;
    case COMMAND_PULSE_RESET: host->request_reset(host->machine); break;
    default: break;
    }
}

static struct err *i8042_save(struct device *device, ProtobufCMessage **out_state)
{
    const struct i8042 *i8042 = i8042_of(device);
    Ferry__I8042State *state = NULL;
    TRY(STATE_MESSAGE_CREATE(&ferry__i8042_state__descriptor, &state));

    state->config = i8042->config;
    state->command = i8042->command;
    state->output = i8042->output;
    state->output_full = i8042->has_output;
    *out_state = &state->base;
    return NULL;
}

static struct err *i8042_validate(struct device *device, uint32_t version,
                                  const ProtobufCMessage *message)
{
    const Ferry__I8042State *state = STATE_MESSAGE(Ferry__I8042State, message);

    (void)device;
    (void)version;
    TRY(state_check_max("config", state->config, UINT8_MAX));
    TRY(state_check_max("command", state->command, UINT8_MAX));
    return state_check_max("output", state->output, UINT8_MAX);
}

static struct err *i8042_apply(struct device *device, const ProtobufCMessage *message)
{
    struct i8042 *i8042 = i8042_of(device);
    const Ferry__I8042State *state = STATE_MESSAGE(Ferry__I8042State, message);

    i8042->config = (uint8_t)state->config;
    i8042->command = (uint8_t)state->command;
    i8042->output = (uint8_t)state->output;
    i8042->has_output = state->output_full;
    return NULL;
}

static void i8042_reset(struct device *device)
{
    struct i8042 *i8042 = i8042_of(device);

    i8042->config = 0;
    i8042->command = 0;
    i8042->output = 0;
    i8042->has_output = false;
}

static struct err *i8042_start(struct device *device)
{
    (void)device; /* does nothing of its own */
    return NULL;
}

static void i8042_stop(struct device *device)
{
    (void)device;
}

static void i8042_destroy(struct device *device)
{
    struct i8042 *i8042 = i8042_of(device);

    io_bus_remove(device->host->ports, i8042->data_range);
    io_bus_remove(device->host->ports, i8042->command_range);
    free(i8042);
}

static const struct io_range_ops data_ops = {
    .name = "i8042 data",
    .read = data_read,
    .write = data_write,
};

static const struct io_range_ops command_ops = {
    .name = "i8042 command",
    .read = command_read,
    .write = command_write,
};

static const struct device_ops i8042_ops = {
    .section = "i8042",
    .version = 1,
    .state_type = &ferry__i8042_state__descriptor,
    .save = i8042_save,
    .validate = i8042_validate,
    .apply = i8042_apply,
    .reset = i8042_reset,
    .start = i8042_start,
    .stop = i8042_stop,
    .destroy = i8042_destroy,
};

struct err *i8042_create(struct device_host *host, struct device **out_device)
{
    CLEANUP(cleanup_free) struct i8042 *i8042 = calloc(1, sizeof(*i8042));
    if (i8042 == NULL)
        return err_new(ERR_NO_MEMORY, "keyboard controller");

    i8042->base = (struct device){.ops = &i8042_ops, .host = host};
    TRY(io_bus_add(host->ports, PORT_I8042_DATA, 1, &data_ops, i8042, &i8042->data_range));
    struct err *err =
        io_bus_add(host->ports, PORT_I8042_COMMAND, 1, &command_ops, i8042, &i8042->command_range);
    if (err != NULL) {
        io_bus_remove(host->ports, i8042->data_range);
        return err;
    }
    *out_device = &TAKE_PTR(i8042)->base;
    return NULL;
}
