/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_checker.h - a second opinion on images: written from the format alone, it shares no code
 * with storage/qcow.
 *
 * Knows versions 2 and 3, counts of 8 bits and more, and neither internal snapshots, compressed
 * clusters nor bitmaps, which tests of the writer do not make.
 */
#ifndef STORAGE_TESTING_QCOW_CHECKER_H
#define STORAGE_TESTING_QCOW_CHECKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct qcow_verdict {
    unsigned errors; /* counts below references, malformed or stray pointers, wrong flags */
    unsigned leaks;  /* counts above references */
    char first[160]; /* the first error, for people */
};

struct qcow_verdict qcow_checker_run(const uint8_t *image, size_t len);

/* The image's own bytes for a guest sector. */
enum qcow_sector { QCOW_SECTOR_DATA, QCOW_SECTOR_ZERO, QCOW_SECTOR_BELOW, QCOW_SECTOR_BROKEN };
enum qcow_sector qcow_checker_read(const uint8_t *image, size_t len, uint64_t guest_offset,
                                   uint8_t out_sector[512]);

#endif
