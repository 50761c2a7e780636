/* SPDX-License-Identifier: Apache-2.0 */
/*
 * serial_16550_internal.h - the port's registers, shared by its behaviour and its state.
 */
#ifndef VMM_DEVICES_LEGACY_SERIAL_16550_INTERNAL_H
#define VMM_DEVICES_LEGACY_SERIAL_16550_INTERNAL_H

#include "vmm/bus/interrupts.h"
#include "vmm/bus/io_bus.h"
#include "vmm/devices/legacy/serial_16550.h"

/* More than the chip's 16, so that pasted text does not trickle in one interrupt for 16 bytes. */
#define SERIAL_RECEIVE_BYTES 256u

#define SERIAL_IER_RECEIVE  0x01u
#define SERIAL_IER_TRANSMIT 0x02u
#define SERIAL_IER_LINE     0x04u
#define SERIAL_IER_MASK     0x0fu

#define SERIAL_FCR_ENABLE        0x01u
#define SERIAL_FCR_CLEAR_RECEIVE 0x02u
#define SERIAL_FCR_MASK          0xc9u /* the bits that stay */

#define SERIAL_MCR_MASK 0x1fu

struct serial_16550 {
    struct device base;
    struct io_range *range; /* owned by the bus */
    struct serial_line line;
    uint32_t gsi;
    uint16_t divisor;
    uint8_t interrupt_enable;
    uint8_t fifo_control;
    uint8_t line_control;
    uint8_t modem_control;
    uint8_t scratch;
    bool has_overrun;
    bool has_transmit_interrupt; /* the holding register became empty and nobody was told */
    bool is_input_short;         /* the line waits for input_room */
    uint8_t receive[SERIAL_RECEIVE_BYTES];
    uint32_t receive_start;
    uint32_t receive_count;
};

void serial_16550_update_line(struct serial_16550 *serial);

ERR_RESULT serial_16550_save(struct device *device, ProtobufCMessage **out_state);
ERR_RESULT serial_16550_validate(struct device *device, uint32_t version,
                                 const ProtobufCMessage *state);
ERR_RESULT serial_16550_apply(struct device *device, const ProtobufCMessage *state);

#endif
