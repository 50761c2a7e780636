/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bytes.h - bounded cursors over untrusted and outgoing bytes.
 *
 * Errors stick: after the first short read every later read yields 0, so a parser runs straight
 * through and asks reader_ok() once at the end.
 */
#ifndef BASE_BYTES_H
#define BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct reader {
    const uint8_t *at;
    const uint8_t *end;
    bool failed;
};

struct writer {
    uint8_t *at;
    uint8_t *end;
    bool failed;
};

/* data may be NULL when len is 0. */
static inline struct reader reader_of(const void *data, size_t len)
{
    const uint8_t *start = len == 0 ? (const uint8_t *)"" : data; /* no arithmetic on NULL */

    return (struct reader){.at = start, .end = start + len};
}

static inline struct writer writer_of(void *data, size_t len)
{
    return (struct writer){.at = data, .end = (uint8_t *)data + len};
}

static inline bool reader_ok(const struct reader *r)
{
    return !r->failed;
}
static inline bool writer_ok(const struct writer *w)
{
    return !w->failed;
}
static inline size_t reader_left(const struct reader *r)
{
    return (size_t)(r->end - r->at);
}

/* The next len bytes, which stay where they are; NULL when there are fewer. */
static inline const uint8_t *reader_take(struct reader *r, size_t len)
{
    if (r->failed || reader_left(r) < len) {
        r->failed = true;
        return NULL;
    }
    const uint8_t *start = r->at;
    r->at += len;
    return start;
}

static inline uint32_t reader_be32(struct reader *r)
{
    const uint8_t *p = reader_take(r, 4);
    if (p == NULL)
        return 0;
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline uint8_t reader_u8(struct reader *r)
{
    const uint8_t *p = reader_take(r, 1);
    return p == NULL ? 0 : *p;
}

static inline uint16_t reader_be16(struct reader *r)
{
    const uint8_t *p = reader_take(r, 2);
    if (p == NULL)
        return 0;
    return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint64_t reader_be64(struct reader *r)
{
    uint64_t high = reader_be32(r);
    return high << 32 | reader_be32(r);
}

static inline uint16_t reader_le16(struct reader *r)
{
    const uint8_t *p = reader_take(r, 2);
    if (p == NULL)
        return 0;
    return (uint16_t)(p[1] << 8 | p[0]);
}

static inline uint32_t reader_le32(struct reader *r)
{
    uint32_t low = reader_le16(r);
    return (uint32_t)reader_le16(r) << 16 | low;
}

static inline uint64_t reader_le64(struct reader *r)
{
    uint64_t low = reader_le32(r);
    return (uint64_t)reader_le32(r) << 32 | low;
}

static inline void reader_skip(struct reader *r, size_t len)
{
    (void)reader_take(r, len);
}

static inline uint64_t reader_varint(struct reader *r)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        const uint8_t *p = reader_take(r, 1);
        if (p == NULL)
            return 0;
        if (shift == 63 && *p > 1)
            break; /* more than 64 bits */
        value |= (uint64_t)(*p & 0x7f) << shift;
        if ((*p & 0x80) == 0)
            return value;
    }
    r->failed = true;
    return 0;
}

static inline void writer_bytes(struct writer *w, const void *data, size_t len)
{
    if (w->failed || (size_t)(w->end - w->at) < len) {
        w->failed = true;
        return;
    }
    if (len == 0)
        return; /* data may be NULL */
    memcpy(w->at, data, len);
    w->at += len;
}

static inline size_t writer_left(const struct writer *w)
{
    return (size_t)(w->end - w->at);
}

static inline void writer_u8(struct writer *w, uint8_t value)
{
    writer_bytes(w, &value, 1);
}

static inline void writer_be16(struct writer *w, uint16_t value)
{
    writer_bytes(w, (uint8_t[]){(uint8_t)(value >> 8), (uint8_t)value}, 2);
}

static inline void writer_be32(struct writer *w, uint32_t value)
{
    writer_be16(w, (uint16_t)(value >> 16));
    writer_be16(w, (uint16_t)value);
}

static inline void writer_be64(struct writer *w, uint64_t value)
{
    writer_be32(w, (uint32_t)(value >> 32));
    writer_be32(w, (uint32_t)value);
}

static inline void writer_le16(struct writer *w, uint16_t value)
{
    writer_bytes(w, (uint8_t[]){(uint8_t)value, (uint8_t)(value >> 8)}, 2);
}

static inline void writer_le32(struct writer *w, uint32_t value)
{
    writer_le16(w, (uint16_t)value);
    writer_le16(w, (uint16_t)(value >> 16));
}

static inline void writer_le64(struct writer *w, uint64_t value)
{
    writer_le32(w, (uint32_t)value);
    writer_le32(w, (uint32_t)(value >> 32));
}

static inline void writer_varint(struct writer *w, uint64_t value)
{
    do {
        uint8_t byte = (uint8_t)(value & 0x7f) | (value > 0x7f ? 0x80 : 0);
        writer_bytes(w, &byte, 1);
        value >>= 7;
    } while (value != 0);
}

#endif
