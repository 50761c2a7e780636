/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rtc_cmos.c - an MC146818 over the host's clock.
 *
 * Time registers are made when they are read. While the guest holds them still with the SET bit
 * they come from `held`; letting go turns what it wrote into the distance from the host's time.
 */
#include "vmm/devices/legacy/rtc_cmos.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "proto/device_state.pb-c.h"
#include "vmm/bus/io_bus.h"
#include "vmm/bus/platform_map.h"
#include "vmm/devices/state_message.h"

#define CMOS_BYTES 128u

enum {
    REGISTER_SECONDS = 0x00,
    REGISTER_MINUTES = 0x02,
    REGISTER_HOURS = 0x04,
    REGISTER_WEEKDAY = 0x06,
    REGISTER_DAY = 0x07,
    REGISTER_MONTH = 0x08,
    REGISTER_YEAR = 0x09,
    REGISTER_A = 0x0a,
    REGISTER_B = 0x0b,
    REGISTER_C = 0x0c,
    REGISTER_D = 0x0d,
    REGISTER_CENTURY = 0x32,
};

#define A_DIVIDER_AND_RATE 0x26u /* 32768 Hz, 1024 Hz: as the chip starts */
#define A_UPDATING         0x80u
#define B_24_HOURS         0x02u
#define B_BINARY           0x04u
#define B_SET              0x80u
#define C_UPDATE_ENDED     0x10u
#define D_VALID            0x80u
#define HOUR_IS_PM         0x80u

/* "Update cycle in progress" shows 244 us before the registers change. */
#define UPDATE_WARNING_NS (244u * NS_PER_US)

/* No guest needs its clock to be further from the host's: 1000 years. */
#define OFFSET_S_MAX ((int64_t)1000 * 366 * 86400)

struct rtc_cmos {
    struct device base;
    struct io_range *range; /* owned by the bus */
    uint8_t index;
    uint8_t cmos[CMOS_BYTES]; /* what is not time; registers A and B among it */
    int64_t offset_s;         /* the guest's time less the host's */
    struct tm held;           /* while SET */
    uint64_t seen_second;     /* at the last read of register C */
};

static struct rtc_cmos *rtc_of(struct device *device)
{
    return CONTAINER_OF(device, struct rtc_cmos, base);
}

static struct tm guest_time(const struct rtc_cmos *rtc)
{
    time_t now = (time_t)(clock_realtime_ns() / NS_PER_S) + rtc->offset_s;
    struct tm time = {.tm_year = 70, .tm_mday = 1};

    (void)gmtime_r(&now, &time);
    return time;
}

static bool is_held(const struct rtc_cmos *rtc)
{
    return (rtc->cmos[REGISTER_B] & B_SET) != 0;
}

static uint8_t encode(const struct rtc_cmos *rtc, int value)
{
    unsigned number = (unsigned)value;

    if ((rtc->cmos[REGISTER_B] & B_BINARY) != 0)
        return (uint8_t)number;
    return (uint8_t)((number / 10) << 4 | number % 10);
}

static int decode(const struct rtc_cmos *rtc, uint8_t byte)
{
    if ((rtc->cmos[REGISTER_B] & B_BINARY) != 0)
        return byte;
    return (byte >> 4) * 10 + (byte & 0x0f);
}

static uint8_t encode_hour(const struct rtc_cmos *rtc, int hour)
{
    if ((rtc->cmos[REGISTER_B] & B_24_HOURS) != 0)
        return encode(rtc, hour);
    uint8_t byte = encode(rtc, hour % 12 == 0 ? 12 : hour % 12);
    return hour >= 12 ? byte | HOUR_IS_PM : byte;
}

static int decode_hour(const struct rtc_cmos *rtc, uint8_t byte)
{
    if ((rtc->cmos[REGISTER_B] & B_24_HOURS) != 0)
        return decode(rtc, byte);
    int hour = decode(rtc, byte & (uint8_t)~HOUR_IS_PM) % 12;
    return (byte & HOUR_IS_PM) != 0 ? hour + 12 : hour;
}

static bool is_time_register(uint8_t index)
{
    switch (index) {
    case REGISTER_SECONDS:
    case REGISTER_MINUTES:
    case REGISTER_HOURS:
    case REGISTER_WEEKDAY:
    case REGISTER_DAY:
    case REGISTER_MONTH:
    case REGISTER_YEAR:
    case REGISTER_CENTURY: return true;
    default: return false;
    }
}

static uint8_t time_read(const struct rtc_cmos *rtc, uint8_t index)
{
    struct tm time = is_held(rtc) ? rtc->held : guest_time(rtc);
    int year = time.tm_year + 1900;

    switch (index) {
    case REGISTER_SECONDS: return encode(rtc, time.tm_sec);
    case REGISTER_MINUTES: return encode(rtc, time.tm_min);
    case REGISTER_HOURS: return encode_hour(rtc, time.tm_hour);
    case REGISTER_WEEKDAY: return encode(rtc, time.tm_wday + 1);
    case REGISTER_DAY: return encode(rtc, time.tm_mday);
    case REGISTER_MONTH: return encode(rtc, time.tm_mon + 1);
    case REGISTER_YEAR: return encode(rtc, year % 100);
    default: return encode(rtc, year / 100 % 100);
    }
}

/* From what the guest wrote; timegm makes sense of days and months that do not exist. */
static void time_release(struct rtc_cmos *rtc)
{
    int64_t now = (int64_t)(clock_realtime_ns() / NS_PER_S);
    int64_t offset_s = (int64_t)timegm(&rtc->held) - now;

    if (offset_s >= -OFFSET_S_MAX && offset_s <= OFFSET_S_MAX)
        rtc->offset_s = offset_s;
}

static void time_write(struct rtc_cmos *rtc, uint8_t index, uint8_t byte)
{
    if (!is_held(rtc))
        rtc->held = guest_time(rtc);
    struct tm *time = &rtc->held;
    int year = time->tm_year + 1900;

    switch (index) {
    case REGISTER_SECONDS: time->tm_sec = decode(rtc, byte); break;
    case REGISTER_MINUTES: time->tm_min = decode(rtc, byte); break;
    case REGISTER_HOURS: time->tm_hour = decode_hour(rtc, byte); break;
    case REGISTER_DAY: time->tm_mday = decode(rtc, byte); break;
    case REGISTER_MONTH: time->tm_mon = decode(rtc, byte) - 1; break;
    case REGISTER_YEAR: year = year - year % 100 + decode(rtc, byte); break;
    case REGISTER_CENTURY: year = decode(rtc, byte) * 100 + year % 100; break;
    default: break; /* the day of the week follows from the date */
    }
    time->tm_year = year - 1900;
    if (!is_held(rtc))
        time_release(rtc);
}

static uint8_t register_a_read(const struct rtc_cmos *rtc)
{
    bool is_updating =
        !is_held(rtc) && clock_realtime_ns() % NS_PER_S >= NS_PER_S - UPDATE_WARNING_NS;

    return rtc->cmos[REGISTER_A] | (is_updating ? A_UPDATING : 0);
}

static uint8_t register_c_read(struct rtc_cmos *rtc)
{
    uint64_t second = clock_realtime_ns() / NS_PER_S;
    bool has_updated = !is_held(rtc) && second != rtc->seen_second;

    rtc->seen_second = second;
    return has_updated ? C_UPDATE_ENDED : 0;
}

static void register_b_write(struct rtc_cmos *rtc, uint8_t value)
{
    bool was_held = is_held(rtc);

    if (!was_held && (value & B_SET) != 0)
        rtc->held = guest_time(rtc);
    rtc->cmos[REGISTER_B] = value;
    if (was_held && (value & B_SET) == 0)
        time_release(rtc);
}

static void ports_read(void *context, uint64_t offset, uint8_t *out_data, size_t len)
{
    struct rtc_cmos *rtc = context;

    memset(out_data, 0xff, len);
    if (offset + len != 2)
        return; /* the index register is write only */
    uint8_t *byte = &out_data[len - 1];
    if (is_time_register(rtc->index))
        *byte = time_read(rtc, rtc->index);
    else if (rtc->index == REGISTER_A)
        *byte = register_a_read(rtc);
    else if (rtc->index == REGISTER_C)
        *byte = register_c_read(rtc);
    else if (rtc->index == REGISTER_D)
        *byte = D_VALID;
    else
        *byte = rtc->cmos[rtc->index];
}

static void data_write(struct rtc_cmos *rtc, uint8_t value)
{
    if (is_time_register(rtc->index))
        time_write(rtc, rtc->index, value);
    else if (rtc->index == REGISTER_A)
        rtc->cmos[REGISTER_A] = value & (uint8_t)~A_UPDATING;
    else if (rtc->index == REGISTER_B)
        register_b_write(rtc, value);
    else if (rtc->index != REGISTER_C && rtc->index != REGISTER_D)
        rtc->cmos[rtc->index] = value;
}

static void ports_write(void *context, uint64_t offset, const uint8_t *data, size_t len)
{
    struct rtc_cmos *rtc = context;

    for (size_t i = 0; i < len; i++) {
        if (offset + i == 0)
            rtc->index = data[i] & (CMOS_BYTES - 1); /* the top bit masks NMIs */
        else
            data_write(rtc, data[i]);
    }
}

static struct err *rtc_save(struct device *device, ProtobufCMessage **out_state)
{
    struct rtc_cmos *rtc = rtc_of(device);
    Ferry__RtcCmosState *state = NULL;
    TRY(STATE_MESSAGE_CREATE(&ferry__rtc_cmos_state__descriptor, &state));

    state->index = rtc->index;
    state->offset_seconds = rtc->offset_s;
    state->held_seconds = is_held(rtc) ? (int64_t)timegm(&rtc->held) : 0;
    struct err *err = state_bytes_set(&state->cmos, rtc->cmos, sizeof(rtc->cmos));
    return state_message_finish(err, &state->base, out_state);
}

static struct err *offset_check(const char *field, int64_t seconds)
{
    if (seconds >= -OFFSET_S_MAX * 4 && seconds <= OFFSET_S_MAX * 4)
        return NULL;
    return err_new(ERR_INVALID, "%s %lld is not a time", field, (long long)seconds);
}

static struct err *rtc_validate(struct device *device, uint32_t version,
                                const ProtobufCMessage *message)
{
    const Ferry__RtcCmosState *state = STATE_MESSAGE(Ferry__RtcCmosState, message);

    (void)device;
    (void)version;
    TRY(state_check_max("index", state->index, CMOS_BYTES - 1));
    TRY(offset_check("offset_seconds", state->offset_seconds));
    TRY(offset_check("held_seconds", state->held_seconds));
    if (state->cmos.len != CMOS_BYTES)
        return err_new(ERR_INVALID, "cmos has %zu bytes instead of %u", state->cmos.len,
                       CMOS_BYTES);
    return NULL;
}

static struct err *rtc_apply(struct device *device, const ProtobufCMessage *message)
{
    struct rtc_cmos *rtc = rtc_of(device);
    const Ferry__RtcCmosState *state = STATE_MESSAGE(Ferry__RtcCmosState, message);
    time_t held = (time_t)state->held_seconds;

    rtc->index = (uint8_t)state->index;
    rtc->offset_s = state->offset_seconds;
    memcpy(rtc->cmos, state->cmos.data, sizeof(rtc->cmos));
    (void)gmtime_r(&held, &rtc->held);
    return NULL;
}

/* Neither the time nor what the battery keeps is lost by a reset. */
static void rtc_reset(struct device *device)
{
    struct rtc_cmos *rtc = rtc_of(device);

    rtc->index = 0;
    rtc->cmos[REGISTER_A] = A_DIVIDER_AND_RATE;
    rtc->cmos[REGISTER_B] = B_24_HOURS;
}

static struct err *rtc_start(struct device *device)
{
    (void)device; /* time is read from the host's clock when it is asked for */
    return NULL;
}

static void rtc_stop(struct device *device)
{
    (void)device;
}

static void rtc_destroy(struct device *device)
{
    struct rtc_cmos *rtc = rtc_of(device);

    io_bus_remove(device->host->ports, rtc->range);
    free(rtc);
}

static const struct io_range_ops ports_ops = {
    .name = "real-time clock",
    .read = ports_read,
    .write = ports_write,
};

static const struct device_ops rtc_cmos_ops = {
    .section = "rtc-cmos",
    .version = 1,
    .state_type = &ferry__rtc_cmos_state__descriptor,
    .save = rtc_save,
    .validate = rtc_validate,
    .apply = rtc_apply,
    .reset = rtc_reset,
    .start = rtc_start,
    .stop = rtc_stop,
    .destroy = rtc_destroy,
};

struct err *rtc_cmos_create(struct device_host *host, struct device **out_device)
{
    CLEANUP(cleanup_free) struct rtc_cmos *rtc = calloc(1, sizeof(*rtc));
    if (rtc == NULL)
        return err_new(ERR_NO_MEMORY, "real-time clock");

    rtc->base = (struct device){.ops = &rtc_cmos_ops, .host = host};
    rtc_reset(&rtc->base);
    TRY(io_bus_add(host->ports, PORT_RTC_INDEX, 2, &ports_ops, rtc, &rtc->range));
    *out_device = &TAKE_PTR(rtc)->base;
    return NULL;
}
