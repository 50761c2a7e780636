/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_refcount_width.h - counts of 1 to 64 bits in a refcount block: big endian from 8 bits on,
 * below that packed from the least significant bit of each byte.
 *
 * Tested by: qcow_refcounts_test.c
 */
#ifndef STORAGE_QCOW_QCOW_REFCOUNT_WIDTH_H
#define STORAGE_QCOW_QCOW_REFCOUNT_WIDTH_H

#include <stdint.h>

/* A count has 1 << order bits. */
static inline uint64_t qcow_refcount_width_get(const uint8_t *block, uint64_t index, unsigned order)
{
    if (order < 3) {
        unsigned per_byte = 8u >> order, bits = 1u << order;
        return (uint32_t)block[index / per_byte] >> (index % per_byte * bits) & ((1u << bits) - 1);
    }

    uint64_t bytes = (uint64_t)1 << (order - 3);
    uint64_t value = 0;
    for (uint64_t i = 0; i < bytes; i++)
        value = value << 8 | block[index * bytes + i];
    return value;
}

/* The caller knows that the value fits. */
static inline void qcow_refcount_width_set(uint8_t *block, uint64_t index, unsigned order,
                                           uint64_t value)
{
    if (order < 3) {
        unsigned per_byte = 8u >> order, bits = 1u << order;
        unsigned shift = (unsigned)(index % per_byte) * bits;
        unsigned mask = ((1u << bits) - 1) << shift;
        uint8_t *byte = &block[index / per_byte];
        *byte = (uint8_t)((*byte & ~mask) | ((unsigned)value << shift & mask));
        return;
    }

    uint64_t bytes = (uint64_t)1 << (order - 3);
    for (uint64_t i = bytes; i-- > 0; value >>= 8)
        block[index * bytes + i] = (uint8_t)value;
}

#endif
