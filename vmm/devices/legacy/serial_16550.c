/* SPDX-License-Identifier: Apache-2.0 */
/*
 * serial_16550.c - registers and interrupts of a 16550A.
 *
 * The transmitter is always empty: a byte leaves while it is written. What remains of it is the
 * interrupt "holding register empty", which is pending from each write, and from the moment that
 * it is enabled, until the guest reads it from the identification register.
 */
#include "vmm/devices/legacy/serial_16550.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/checked_math.h"
#include "base/cleanup.h"
#include "proto/device_state.pb-c.h"
#include "vmm/devices/legacy/serial_16550_internal.h"

#define PORTS 8u

enum {
    REGISTER_DATA = 0,      /* divisor low */
    REGISTER_INTERRUPT = 1, /* divisor high */
    REGISTER_IDENTIFY = 2,  /* write: FIFO control */
    REGISTER_LINE_CONTROL = 3,
    REGISTER_MODEM_CONTROL = 4,
    REGISTER_LINE_STATUS = 5,
    REGISTER_MODEM_STATUS = 6,
    REGISTER_SCRATCH = 7,
};

#define IIR_NONE     0x01u
#define IIR_TRANSMIT 0x02u
#define IIR_RECEIVE  0x04u
#define IIR_LINE     0x06u
#define IIR_FIFOS    0xc0u

#define LCR_DIVISOR_LATCH 0x80u

#define MCR_OUT2     0x08u /* gates the interrupt line on PCs */
#define MCR_LOOPBACK 0x10u

#define LSR_DATA_READY 0x01u
#define LSR_OVERRUN    0x02u
#define LSR_EMPTY      0x60u /* holding register and shifter */

#define MSR_CONNECTED 0xb0u /* carrier, data set ready, clear to send */

static struct serial_16550 *serial_of(struct device *device)
{
    return CONTAINER_OF(device, struct serial_16550, base);
}

/* The cause of highest priority, as the identification register shows it. */
static uint8_t interrupt_cause(const struct serial_16550 *serial)
{
    if (serial->has_overrun && (serial->interrupt_enable & SERIAL_IER_LINE) != 0)
        return IIR_LINE;
    if (serial->receive_count > 0 && (serial->interrupt_enable & SERIAL_IER_RECEIVE) != 0)
        return IIR_RECEIVE;
    if (serial->has_transmit_interrupt && (serial->interrupt_enable & SERIAL_IER_TRANSMIT) != 0)
        return IIR_TRANSMIT;
    return IIR_NONE;
}

void serial_16550_update_line(struct serial_16550 *serial)
{
    bool is_gated =
        (serial->modem_control & MCR_OUT2) == 0 || (serial->modem_control & MCR_LOOPBACK) != 0;

    interrupts_set_line(serial->base.host->interrupts, serial->gsi,
                        !is_gated && interrupt_cause(serial) != IIR_NONE);
}

static bool receive_push(struct serial_16550 *serial, uint8_t byte)
{
    if (serial->receive_count == SERIAL_RECEIVE_BYTES)
        return false;
    serial->receive[(serial->receive_start + serial->receive_count) % SERIAL_RECEIVE_BYTES] = byte;
    serial->receive_count++;
    return true;
}

static uint8_t receive_pop(struct serial_16550 *serial)
{
    if (serial->receive_count == 0)
        return 0;
    uint8_t byte = serial->receive[serial->receive_start];
    serial->receive_start = (serial->receive_start + 1) % SERIAL_RECEIVE_BYTES;
    serial->receive_count--;
    return byte;
}

/* The line's callback may bring input at once. */
static void offer_room(struct serial_16550 *serial)
{
    if (!serial->is_input_short || serial->receive_count > SERIAL_RECEIVE_BYTES / 2)
        return;
    serial->is_input_short = false;
    serial->line.input_room(serial->line.context);
}

static void transmit(struct serial_16550 *serial, uint8_t byte)
{
    if ((serial->modem_control & MCR_LOOPBACK) == 0)
        serial->line.output(serial->line.context, byte);
    else if (!receive_push(serial, byte))
        serial->has_overrun = true;
    serial->has_transmit_interrupt = true;
}

static uint8_t identify(struct serial_16550 *serial)
{
    uint8_t cause = interrupt_cause(serial);

    if (cause == IIR_TRANSMIT)
        serial->has_transmit_interrupt = false;
    return cause | ((serial->fifo_control & SERIAL_FCR_ENABLE) != 0 ? IIR_FIFOS : 0);
}

static uint8_t line_status(struct serial_16550 *serial)
{
    uint8_t status = LSR_EMPTY;

    if (serial->receive_count > 0)
        status |= LSR_DATA_READY;
    if (serial->has_overrun)
        status |= LSR_OVERRUN;
    serial->has_overrun = false;
    return status;
}

/* In loopback the control outputs arrive at the status inputs: RTS at CTS, DTR at DSR, OUT1 at RI,
 * OUT2 at DCD. Drivers find the chip by this. */
static uint8_t modem_status(const struct serial_16550 *serial)
{
    uint8_t control = serial->modem_control;

    if ((control & MCR_LOOPBACK) == 0)
        return MSR_CONNECTED;
    return (uint8_t)((control & 0x02) << 3 | (control & 0x01) << 5 | (control & 0x0c) << 4);
}

static uint8_t register_read(struct serial_16550 *serial, uint64_t index)
{
    bool is_latch = (serial->line_control & LCR_DIVISOR_LATCH) != 0;

    switch (index) {
    case REGISTER_DATA: return is_latch ? (uint8_t)serial->divisor : receive_pop(serial);
    case REGISTER_INTERRUPT:
        return is_latch ? (uint8_t)(serial->divisor >> 8) : serial->interrupt_enable;
    case REGISTER_IDENTIFY: return identify(serial);
    case REGISTER_LINE_CONTROL: return serial->line_control;
    case REGISTER_MODEM_CONTROL: return serial->modem_control;
    case REGISTER_LINE_STATUS: return line_status(serial);
    case REGISTER_MODEM_STATUS: return modem_status(serial);
    default: return serial->scratch;
    }
}

static void fifo_control_write(struct serial_16550 *serial, uint8_t value)
{
    bool is_switched = ((value ^ serial->fifo_control) & SERIAL_FCR_ENABLE) != 0;

    if (is_switched || (value & SERIAL_FCR_CLEAR_RECEIVE) != 0)
        serial->receive_count = 0;
    serial->fifo_control =
        (value & SERIAL_FCR_ENABLE) != 0 ? (uint8_t)(value & SERIAL_FCR_MASK) : 0;
}

static void interrupt_enable_write(struct serial_16550 *serial, uint8_t value)
{
    uint8_t risen = value & (uint8_t)~serial->interrupt_enable;

    if ((risen & SERIAL_IER_TRANSMIT) != 0)
        serial->has_transmit_interrupt = true;
    serial->interrupt_enable = value & SERIAL_IER_MASK;
}

static void register_write(struct serial_16550 *serial, uint64_t index, uint8_t value)
{
    bool is_latch = (serial->line_control & LCR_DIVISOR_LATCH) != 0;

    switch (index) {
    case REGISTER_DATA:
        if (is_latch)
            serial->divisor = (uint16_t)((serial->divisor & 0xff00) | value);
        else
            transmit(serial, value);
        break;
    case REGISTER_INTERRUPT:
        if (is_latch)
            serial->divisor = (uint16_t)((serial->divisor & 0xff) | value << 8);
        else
            interrupt_enable_write(serial, value);
        break;
    case REGISTER_IDENTIFY: fifo_control_write(serial, value); break;
    case REGISTER_LINE_CONTROL: serial->line_control = value; break;
    case REGISTER_MODEM_CONTROL: serial->modem_control = value & SERIAL_MCR_MASK; break;
    case REGISTER_SCRATCH: serial->scratch = value; break;
    default: break; /* the status registers are read only */
    }
}

static void ports_read(void *context, uint64_t offset, uint8_t *out_data, size_t len)
{
    struct serial_16550 *serial = context;

    for (size_t i = 0; i < len; i++)
        out_data[i] = register_read(serial, offset + i);
    offer_room(serial);
    serial_16550_update_line(serial);
}

static void ports_write(void *context, uint64_t offset, const uint8_t *data, size_t len)
{
    struct serial_16550 *serial = context;

    for (size_t i = 0; i < len; i++)
        register_write(serial, offset + i, data[i]);
    offer_room(serial);
    serial_16550_update_line(serial);
}

size_t serial_16550_input(struct device *device, const uint8_t *data, size_t len)
{
    struct serial_16550 *serial = serial_of(device);
    size_t taken = 0;

    while (taken < len && receive_push(serial, data[taken]))
        taken++;
    if (taken < len)
        serial->is_input_short = true;
    serial_16550_update_line(serial);
    return taken;
}

static void serial_reset(struct device *device)
{
    struct serial_16550 *serial = serial_of(device);

    serial->divisor = 12; /* 9600 baud */
    serial->interrupt_enable = 0;
    serial->fifo_control = 0;
    serial->line_control = 0;
    serial->modem_control = 0;
    serial->scratch = 0;
    serial->has_overrun = false;
    serial->has_transmit_interrupt = false;
    serial->receive_start = 0;
    serial->receive_count = 0;
    serial_16550_update_line(serial);
}

static struct err *serial_start(struct device *device)
{
    struct serial_16550 *serial = serial_of(device);

    offer_room(serial);
    serial_16550_update_line(serial);
    return NULL;
}

static void serial_stop(struct device *device)
{
    (void)device; /* nothing is ever in flight */
}

static void serial_destroy(struct device *device)
{
    struct serial_16550 *serial = serial_of(device);

    io_bus_remove(device->host->ports, serial->range);
    free(serial);
}

static const struct io_range_ops ports_ops = {
    .name = "serial port",
    .read = ports_read,
    .write = ports_write,
};

static const struct device_ops serial_16550_ops = {
    .section = "serial-16550",
    .version = 1,
    .state_type = &ferry__serial16550_state__descriptor,
    .save = serial_16550_save,
    .validate = serial_16550_validate,
    .apply = serial_16550_apply,
    .reset = serial_reset,
    .start = serial_start,
    .stop = serial_stop,
    .destroy = serial_destroy,
};

struct err *serial_16550_create(struct device_host *host, uint32_t instance, uint16_t port,
                                uint32_t gsi, const struct serial_line *line,
                                struct device **out_device)
{
    ASSERT(line->output != NULL && line->input_room != NULL);
    CLEANUP(cleanup_free) struct serial_16550 *serial = calloc(1, sizeof(*serial));
    if (serial == NULL)
        return err_new(ERR_NO_MEMORY, "serial port");

    serial->base = (struct device){.ops = &serial_16550_ops, .host = host, .instance = instance};
    serial->line = *line;
    serial->gsi = gsi;
    serial->divisor = 12;
    TRY(io_bus_add(host->ports, port, PORTS, &ports_ops, serial, &serial->range));
    *out_device = &TAKE_PTR(serial)->base;
    return NULL;
}
