/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guest_memory.h - the one door to the guest's RAM.
 *
 * RAM is one shared memfd, mapped once, in a few large regions of guest-physical space (below the
 * PCI hole and from 4 GiB on). RAM pages are numbered through the file. Every write through here
 * is marked in the device-side dirty bitmap, because KVM's log sees only vCPUs.
 * Thread: any; the content is as racy as real memory shared with a CPU.
 */
#ifndef VMM_MEMORY_GUEST_MEMORY_H
#define VMM_MEMORY_GUEST_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"
#include "base/limits.h"

typedef struct {
    uint64_t value;
} gpa_t; /* guest physical address, in bytes */

static inline gpa_t gpa(uint64_t value)
{
    return (gpa_t){value};
}

struct guest_memory;

struct guest_region {
    gpa_t start;
    uint64_t bytes;
    uint64_t file_offset;
};

/* Creates the memfd and maps it. below_4g_bytes is the part below the PCI hole (at most 3 GiB). */
ERR_RESULT guest_memory_create(uint64_t bytes, uint64_t below_4g_bytes,
                               struct guest_memory **out_memory);
void guest_memory_destroy(struct guest_memory *memory); /* accepts NULL */

size_t guest_memory_region_count(const struct guest_memory *memory);
struct guest_region guest_memory_region(const struct guest_memory *memory, size_t index);
uint64_t guest_memory_page_count(const struct guest_memory *memory);
int guest_memory_fd(const struct guest_memory *memory);

/* The mapping of the whole file, for what hands it to the kernel (memory slots, page faults) or
 * reads it back from there; and the device-side dirty bitmap, a bit a page, for the tracker. */
void *guest_memory_mapping(struct guest_memory *memory);
uint64_t *guest_memory_device_marks(struct guest_memory *memory);

/* Copies; false when the range is not wholly RAM, and then nothing is copied or marked. */
bool guest_read(struct guest_memory *memory, gpa_t from, void *out_data, size_t len);
bool guest_write(struct guest_memory *memory, gpa_t to, const void *data, size_t len);

/* 16-bit little-endian accesses that are single atomic loads and stores, for virtqueue indexes:
 * acquire and release. The address must be even. */
bool guest_load_acquire16(struct guest_memory *memory, gpa_t from, uint16_t *out_value);
bool guest_store_release16(struct guest_memory *memory, gpa_t to, uint16_t value);

/* Lends host addresses for bulk I/O: up to iovs_max pieces (a range that crosses regions takes
 * more than one). Returns the number used, 0 when the range is not wholly RAM or needs more.
 * After the device has written, guest_span_dirty marks the range; call it before the guest is told.
 */
int guest_span(struct guest_memory *memory, gpa_t start, size_t len, struct iovec *out_iovs,
               int iovs_max);
void guest_span_dirty(struct guest_memory *memory, gpa_t start, size_t len);

#endif
