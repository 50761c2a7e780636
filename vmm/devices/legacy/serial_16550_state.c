/* SPDX-License-Identifier: Apache-2.0 */
/*
 * serial_16550_state.c - saving and restoring a serial port.
 *
 * A restored port whose transmit interrupt is enabled raises it: a guest that sleeps until the
 * transmitter is empty wakes up for certain, and one that does not finds nothing to do.
 */
#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "proto/device_state.pb-c.h"
#include "vmm/devices/legacy/serial_16550_internal.h"
#include "vmm/devices/state_message.h"

struct err *serial_16550_save(struct device *device, ProtobufCMessage **out_state)
{
    const struct serial_16550 *serial = CONTAINER_OF(device, struct serial_16550, base);
    Ferry__Serial16550State *state = NULL;
    TRY(STATE_MESSAGE_CREATE(&ferry__serial16550_state__descriptor, &state));

    state->divisor = serial->divisor;
    state->interrupt_enable = serial->interrupt_enable;
    state->fifo_control = serial->fifo_control;
    state->line_control = serial->line_control;
    state->modem_control = serial->modem_control;
    state->scratch = serial->scratch;
    state->overrun = serial->has_overrun;
    state->transmit_interrupt = serial->has_transmit_interrupt;

    uint8_t received[SERIAL_RECEIVE_BYTES];
    for (uint32_t i = 0; i < serial->receive_count; i++)
        received[i] = serial->receive[(serial->receive_start + i) % SERIAL_RECEIVE_BYTES];
    struct err *err = state_bytes_set(&state->received, received, serial->receive_count);
    return state_message_finish(err, &state->base, out_state);
}

struct err *serial_16550_validate(struct device *device, uint32_t version,
                                  const ProtobufCMessage *message)
{
    const Ferry__Serial16550State *state = STATE_MESSAGE(Ferry__Serial16550State, message);

    (void)device;
    (void)version;
    TRY(state_check_max("divisor", state->divisor, UINT16_MAX));
    TRY(state_check_bits("interrupt_enable", state->interrupt_enable, SERIAL_IER_MASK));
    TRY(state_check_bits("fifo_control", state->fifo_control, SERIAL_FCR_MASK));
    TRY(state_check_max("line_control", state->line_control, UINT8_MAX));
    TRY(state_check_bits("modem_control", state->modem_control, SERIAL_MCR_MASK));
    TRY(state_check_max("scratch", state->scratch, UINT8_MAX));
    return state_check_max("received bytes", state->received.len, SERIAL_RECEIVE_BYTES);
}

struct err *serial_16550_apply(struct device *device, const ProtobufCMessage *message)
{
    struct serial_16550 *serial = CONTAINER_OF(device, struct serial_16550, base);
    const Ferry__Serial16550State *state = STATE_MESSAGE(Ferry__Serial16550State, message);

    serial->divisor = (uint16_t)state->divisor;
    serial->interrupt_enable = (uint8_t)state->interrupt_enable;
    serial->fifo_control = (uint8_t)state->fifo_control;
    serial->line_control = (uint8_t)state->line_control;
    serial->modem_control = (uint8_t)state->modem_control;
    serial->scratch = (uint8_t)state->scratch;
    serial->has_overrun = state->overrun;
    serial->has_transmit_interrupt =
        state->transmit_interrupt || (state->interrupt_enable & SERIAL_IER_TRANSMIT) != 0;
    serial->receive_start = 0;
    serial->receive_count = (uint32_t)state->received.len;
    if (state->received.len > 0)
        memcpy(serial->receive, state->received.data, state->received.len);
    return NULL;
}
