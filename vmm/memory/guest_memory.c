/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guest_memory.c - see guest_memory.h.
 *
 * A write is marked after its last byte is in place: a harvest that comes in between hands the
 * page out too early, and the mark then hands it out once more.
 */
#include "vmm/memory/guest_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/assert.h"
#include "base/bitmap.h"
#include "base/checked_math.h"
#include "base/cleanup.h"

#define BELOW_4G_BYTES_MAX (3u * GIB)

struct guest_memory {
    int fd;
    uint8_t *host; /* the whole file */
    uint64_t bytes;
    uint64_t *marks; /* device-side dirty bits, one a page */
    struct guest_region regions[MACHINE_REGIONS_MAX];
    size_t region_count;
};

static struct err *create_file(struct guest_memory *memory)
{
    memory->fd = memfd_create("guest-memory", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (memory->fd < 0)
        return err_errno(errno, "create the memory file");
    if (ftruncate(memory->fd, (off_t)memory->bytes) < 0)
        return err_errno(errno, "size the memory file to %llu bytes",
                         (unsigned long long)memory->bytes);
    /* A borrower that shrinks the file would kill the machine. */
    if (fcntl(memory->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        return err_errno(errno, "seal the memory file's size");

    void *host = mmap(NULL, memory->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
                      memory->fd, 0);
    if (host == MAP_FAILED)
        return err_errno(errno, "map %llu bytes of guest memory",
                         (unsigned long long)memory->bytes);
    memory->host = host;
    /* Both are wishes: the host may have huge pages switched off. */
    (void)madvise(host, memory->bytes, MADV_HUGEPAGE);
    (void)madvise(host, memory->bytes, MADV_DONTDUMP);

    void *marks = mmap(NULL, bitmap_bytes(memory->bytes / PAGE_BYTES), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (marks == MAP_FAILED)
        return err_errno(errno, "map the dirty bitmap");
    memory->marks = marks;
    return NULL;
}

struct err *guest_memory_create(uint64_t bytes, uint64_t below_4g_bytes,
                                struct guest_memory **out_memory)
{
    if (bytes == 0 || bytes % MIB != 0 || bytes > MACHINE_MEMORY_MIB_MAX * MIB)
        return err_new(ERR_INVALID,
                       "guest memory: %llu bytes is not a whole number of MiB in "
                       "1..%llu",
                       (unsigned long long)bytes, (unsigned long long)MACHINE_MEMORY_MIB_MAX);
    if (below_4g_bytes == 0 || below_4g_bytes % MIB != 0 || below_4g_bytes > BELOW_4G_BYTES_MAX ||
        below_4g_bytes > bytes)
        return err_new(ERR_INVALID,
                       "guest memory: %llu bytes below 4 GiB is not a whole number "
                       "of MiB in 1..3072 and at most all memory",
                       (unsigned long long)below_4g_bytes);

    struct guest_memory *memory = calloc(1, sizeof(*memory));
    if (memory == NULL)
        return err_new(ERR_NO_MEMORY, "guest memory");
    memory->fd = -1;
    memory->bytes = bytes;
    memory->regions[memory->region_count++] = (struct guest_region){gpa(0), below_4g_bytes, 0};
    if (bytes > below_4g_bytes)
        memory->regions[memory->region_count++] =
            (struct guest_region){gpa(4 * GIB), bytes - below_4g_bytes, below_4g_bytes};

    struct err *err = create_file(memory);
    if (err != NULL) {
        guest_memory_destroy(memory);
        return err;
    }

    *out_memory = memory;
    return NULL;
}

void guest_memory_destroy(struct guest_memory *memory)
{
    if (memory == NULL)
        return;
    if (memory->host != NULL)
        (void)munmap(memory->host, memory->bytes);
    if (memory->marks != NULL)
        (void)munmap(memory->marks, bitmap_bytes(memory->bytes / PAGE_BYTES));
    cleanup_fd(&memory->fd);
    free(memory);
}

size_t guest_memory_region_count(const struct guest_memory *memory)
{
    return memory->region_count;
}

struct guest_region guest_memory_region(const struct guest_memory *memory, size_t index)
{
    ASSERT(index < memory->region_count);
    return memory->regions[index];
}

uint64_t guest_memory_page_count(const struct guest_memory *memory)
{
    return memory->bytes / PAGE_BYTES;
}

int guest_memory_fd(const struct guest_memory *memory)
{
    return memory->fd;
}

void *guest_memory_mapping(struct guest_memory *memory)
{
    return memory->host;
}

uint64_t *guest_memory_device_marks(struct guest_memory *memory)
{
    return memory->marks;
}

/* The file offset of a guest address and how many bytes of RAM follow it in its region. */
static bool locate(const struct guest_memory *memory, uint64_t address, uint64_t *out_offset,
                   uint64_t *out_left)
{
    for (size_t i = 0; i < memory->region_count; i++) {
        const struct guest_region *region = &memory->regions[i];
        uint64_t inside = address - region->start.value;
        if (address >= region->start.value && inside < region->bytes) {
            *out_offset = region->file_offset + inside;
            *out_left = region->bytes - inside;
            return true;
        }
    }
    return false;
}

/* Is all of it RAM? Regions that touch in guest space count as one. */
static bool is_ram(const struct guest_memory *memory, uint64_t address, uint64_t len)
{
    uint64_t end;
    if (!checked_add(address, len, &end))
        return false;

    while (len > 0) {
        uint64_t offset;
        uint64_t left;
        if (!locate(memory, address, &offset, &left))
            return false;
        uint64_t piece = MIN(len, left);
        address += piece;
        len -= piece;
    }
    return true;
}

static void mark(struct guest_memory *memory, uint64_t offset, uint64_t len)
{
    for (uint64_t page = offset / PAGE_BYTES; page <= (offset + len - 1) / PAGE_BYTES; page++)
        bitmap_atomic_set(memory->marks, page);
}

bool guest_read(struct guest_memory *memory, gpa_t from, void *out_data, size_t len)
{
    uint8_t *out = out_data;
    uint64_t address = from.value;

    if (!is_ram(memory, address, len))
        return false;
    while (len > 0) {
        uint64_t offset = 0;
        uint64_t left = 0;
        (void)locate(memory, address, &offset, &left);
        size_t piece = (size_t)MIN((uint64_t)len, left);
        memcpy(out, memory->host + offset, piece);
        out += piece;
        address += piece;
        len -= piece;
    }
    return true;
}

bool guest_write(struct guest_memory *memory, gpa_t to, const void *data, size_t len)
{
    const uint8_t *in = data;
    uint64_t address = to.value;

    if (!is_ram(memory, address, len))
        return false;
    while (len > 0) {
        uint64_t offset = 0;
        uint64_t left = 0;
        (void)locate(memory, address, &offset, &left);
        size_t piece = (size_t)MIN((uint64_t)len, left);
        memcpy(memory->host + offset, in, piece);
        mark(memory, offset, piece);
        in += piece;
        address += piece;
        len -= piece;
    }
    return true;
}

bool guest_load_acquire16(struct guest_memory *memory, gpa_t from, uint16_t *out_value)
{
    uint64_t offset;
    uint64_t left;
    if (from.value % 2 != 0 || !locate(memory, from.value, &offset, &left) || left < 2)
        return false;
    /* Pairs with the guest driver's release of a ring index. */
    *out_value =
        __atomic_load_n((const uint16_t *)(const void *)(memory->host + offset), __ATOMIC_ACQUIRE);
    return true;
}

bool guest_store_release16(struct guest_memory *memory, gpa_t to, uint16_t value)
{
    uint64_t offset;
    uint64_t left;
    if (to.value % 2 != 0 || !locate(memory, to.value, &offset, &left) || left < 2)
        return false;
    /* Publishes the ring entries that were written before; the driver acquires the index. */
    __atomic_store_n((uint16_t *)(void *)(memory->host + offset), value, __ATOMIC_RELEASE);
    mark(memory, offset, 2);
    return true;
}

int guest_span(struct guest_memory *memory, gpa_t start, size_t len, struct iovec *out_iovs,
               int iovs_max)
{
    uint64_t address = start.value;
    int count = 0;

    if (len == 0 || !is_ram(memory, address, len))
        return 0;
    while (len > 0) {
        uint64_t offset = 0;
        uint64_t left = 0;
        (void)locate(memory, address, &offset, &left);
        size_t piece = (size_t)MIN((uint64_t)len, left);
        if (count == iovs_max)
            return 0;
        out_iovs[count++] = (struct iovec){memory->host + offset, piece};
        address += piece;
        len -= piece;
    }
    return count;
}

void guest_span_dirty(struct guest_memory *memory, gpa_t start, size_t len)
{
    uint64_t address = start.value;

    while (len > 0) {
        uint64_t offset;
        uint64_t left;
        if (!locate(memory, address, &offset, &left))
            return;
        size_t piece = (size_t)MIN((uint64_t)len, left);
        mark(memory, offset, piece);
        address += piece;
        len -= piece;
    }
}
