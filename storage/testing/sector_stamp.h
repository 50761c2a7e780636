/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sector_stamp.h - sectors that carry one number all over, so that a torn or foreign one shows.
 */
#ifndef STORAGE_TESTING_SECTOR_STAMP_H
#define STORAGE_TESTING_SECTOR_STAMP_H

#include <stdint.h>
#include <string.h>

#define SECTOR_BYTES 512u

static inline void stamp_sector(uint8_t *sector, uint64_t stamp)
{
    for (unsigned i = 0; i < SECTOR_BYTES; i += 8)
        memcpy(sector + i, &stamp, 8);
}

/* UINT64_MAX: not one stamp all over. */
static inline uint64_t stamp_of(const uint8_t *sector)
{
    uint64_t stamp;

    memcpy(&stamp, sector, 8);
    for (unsigned i = 8; i < SECTOR_BYTES; i += 8)
        if (memcmp(sector + i, &stamp, 8) != 0)
            return UINT64_MAX;
    return stamp;
}

#endif
