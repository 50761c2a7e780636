/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guest_boot.c - see guest_boot.h.
 */
#include "vmm/boot/guest_boot.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/file_io.h"
#include "base/limits.h"
#include "vmm/boot/boot_memory_map.h"
#include "vmm/memory/guest_memory.h"

/* boot_params, by the offsets of Documentation/arch/x86/zero-page.rst. */
#define BOOT_PARAMS_BYTES     4096u
#define PARAMS_ACPI_RSDP      0x070u
#define PARAMS_E820_COUNT     0x1e8u
#define PARAMS_SETUP          0x1f1u
#define PARAMS_LOADER_TYPE    0x210u
#define PARAMS_LOAD_FLAGS     0x211u
#define PARAMS_INITRD_ADDRESS 0x218u
#define PARAMS_INITRD_BYTES   0x21cu
#define PARAMS_COMMAND_LINE   0x228u
#define PARAMS_SETUP_DATA     0x250u
#define PARAMS_E820           0x2d0u
#define LOADER_UNREGISTERED   0xffu

/* Xen's xen/include/public/arch-x86/hvm/start_info.h */
#define START_INFO_MAGIC   0x336ec578u
#define START_INFO_VERSION 1u
#define START_INFO_BYTES   56u
#define START_MODULE_BYTES 32u
#define START_INFO_MODULE  (BOOT_START_INFO_ADDRESS + 0x80u)
#define START_INFO_MAP     (BOOT_START_INFO_ADDRESS + 0x100u)
#define START_MAP_BYTES    24u

struct loaded_file {
    uint64_t address;
    uint64_t bytes;
};

static struct err *copy_in(struct guest_memory *memory, uint64_t address, const void *data,
                           size_t len)
{
    if (!guest_write(memory, gpa(address), data, len))
        return err_new(ERR_INVALID, "0x%llx..0x%llx is not RAM; give the machine more memory",
                       (unsigned long long)address, (unsigned long long)(address + len));
    return NULL;
}

static struct err *clear(struct guest_memory *memory, uint64_t address, uint64_t bytes)
{
    static const uint8_t zeros[65536];

    for (uint64_t done = 0; done < bytes;) {
        size_t piece = (size_t)MIN(bytes - done, (uint64_t)sizeof(zeros));
        TRY(copy_in(memory, address + done, zeros, piece));
        done += piece;
    }
    return NULL;
}

/* What is fresh is zero anyway; a reset finds the old machine's memory. */
static struct err *load_segments(struct guest_memory *memory, const struct kernel_image *image,
                                 const uint8_t *data, uint64_t *out_end)
{
    uint64_t end = 0;

    for (size_t i = 0; i < image->segment_count; i++) {
        const struct kernel_segment *segment = &image->segments[i];
        TRY(copy_in(memory, segment->address, data + segment->file_offset,
                    (size_t)segment->file_bytes));
        /* A bzImage's memory beyond its file is for the kernel to unpack itself into. */
        if (image->protocol == KERNEL_PVH)
            TRY(clear(memory, segment->address + segment->file_bytes,
                      segment->memory_bytes - segment->file_bytes));
        end = MAX(end, segment->address + segment->memory_bytes);
    }
    *out_end = end;
    return NULL;
}

/* As high as can be, page-aligned, clear of the kernel. */
static struct err *load_initrd(struct guest_memory *memory, const char *path,
                               const struct kernel_image *image, uint64_t kernel_end,
                               struct loaded_file *out_initrd)
{
    *out_initrd = (struct loaded_file){0, 0};
    if (path == NULL || *path == '\0')
        return NULL;
    CLEANUP(cleanup_free) void *data = NULL;
    size_t len = 0;
    TRY(file_read_all(path, MACHINE_FILE_BYTES_MAX, &data, &len));

    uint64_t top = guest_memory_region(memory, 0).bytes;
    if (image->initrd_address_max < UINT32_MAX)
        top = MIN(top, image->initrd_address_max + 1);
    uint64_t address = top < len ? 0 : align_down(top - len, PAGE_BYTES);
    if (address < kernel_end)
        return err_new(ERR_INVALID,
                       "initrd '%s': %zu bytes do not fit beside the kernel; give the "
                       "machine more memory",
                       path, len);
    TRY(err_wrap(copy_in(memory, address, data, len), "initrd '%s'", path));
    *out_initrd = (struct loaded_file){address, len};
    return NULL;
}

static struct err *load_command_line(struct guest_memory *memory, const char *text,
                                     const struct kernel_image *image)
{
    size_t len = strlen(text);

    if (len > MIN(image->command_line_max, MACHINE_CMDLINE_MAX))
        return err_new(ERR_INVALID, "kernel command line of %zu bytes; the most is %u", len,
                       MIN(image->command_line_max, MACHINE_CMDLINE_MAX));
    return copy_in(memory, BOOT_COMMAND_LINE_ADDRESS, text, len + 1);
}

static struct writer params_at(uint8_t *params, size_t offset)
{
    return writer_of(params + offset, BOOT_PARAMS_BYTES - offset);
}

static struct err *write_boot_params(struct guest_memory *memory, const struct kernel_image *image,
                                     const uint8_t *data, struct loaded_file initrd, uint64_t rsdp)
{
    uint8_t params[BOOT_PARAMS_BYTES] = {0};
    struct writer out;

    memcpy(params + PARAMS_SETUP, data + image->setup_offset, (size_t)image->setup_bytes);
    params[PARAMS_LOADER_TYPE] = LOADER_UNREGISTERED;
    out = params_at(params, PARAMS_ACPI_RSDP);
    writer_le64(&out, rsdp);
    out = params_at(params, PARAMS_INITRD_ADDRESS);
    writer_le32(&out, (uint32_t)initrd.address);
    writer_le32(&out, (uint32_t)initrd.bytes);
    out = params_at(params, PARAMS_COMMAND_LINE);
    writer_le32(&out, BOOT_COMMAND_LINE_ADDRESS);
    out = params_at(params, PARAMS_SETUP_DATA);
    writer_le64(&out, 0);

    struct boot_range ranges[BOOT_RANGES_MAX];
    size_t count = boot_memory_map(memory, ranges);
    params[PARAMS_E820_COUNT] = (uint8_t)count;
    out = params_at(params, PARAMS_E820);
    for (size_t i = 0; i < count; i++) {
        writer_le64(&out, ranges[i].start);
        writer_le64(&out, ranges[i].bytes);
        writer_le32(&out, ranges[i].kind);
    }
    return copy_in(memory, BOOT_PARAMS_ADDRESS, params, sizeof(params));
}

static struct err *write_start_info(struct guest_memory *memory, struct loaded_file initrd,
                                    uint64_t rsdp)
{
    uint8_t info[0x100 + BOOT_RANGES_MAX * START_MAP_BYTES] = {0};
    struct boot_range ranges[BOOT_RANGES_MAX];
    size_t count = boot_memory_map(memory, ranges);
    bool has_initrd = initrd.bytes != 0;

    struct writer out = writer_of(info, START_INFO_BYTES);
    writer_le32(&out, START_INFO_MAGIC);
    writer_le32(&out, START_INFO_VERSION);
    writer_le32(&out, 0); /* flags */
    writer_le32(&out, has_initrd ? 1 : 0);
    writer_le64(&out, has_initrd ? START_INFO_MODULE : 0);
    writer_le64(&out, BOOT_COMMAND_LINE_ADDRESS);
    writer_le64(&out, rsdp);
    writer_le64(&out, START_INFO_MAP);
    writer_le32(&out, (uint32_t)count);

    out = writer_of(info + (START_INFO_MODULE - BOOT_START_INFO_ADDRESS), START_MODULE_BYTES);
    writer_le64(&out, initrd.address);
    writer_le64(&out, initrd.bytes);

    out = writer_of(info + (START_INFO_MAP - BOOT_START_INFO_ADDRESS),
                    (size_t)BOOT_RANGES_MAX * START_MAP_BYTES);
    for (size_t i = 0; i < count; i++) {
        writer_le64(&out, ranges[i].start);
        writer_le64(&out, ranges[i].bytes);
        writer_le32(&out, ranges[i].kind);
        writer_le32(&out, 0);
    }
    return copy_in(memory, BOOT_START_INFO_ADDRESS, info, sizeof(info));
}

static struct err *load_parsed(struct guest_memory *memory, const struct guest_boot_config *config,
                               const struct kernel_image *image, const uint8_t *data,
                               struct boot_entry *out_entry)
{
    uint64_t kernel_end = 0;
    struct loaded_file initrd;

    TRY(load_segments(memory, image, data, &kernel_end));
    TRY(load_initrd(memory, config->initrd, image, kernel_end, &initrd));
    TRY(load_command_line(memory, config->command_line == NULL ? "" : config->command_line, image));
    if (image->protocol == KERNEL_LINUX64)
        TRY(write_boot_params(memory, image, data, initrd, config->rsdp_address));
    else
        TRY(write_start_info(memory, initrd, config->rsdp_address));

    *out_entry = (struct boot_entry){
        .protocol = image->protocol,
        .address = image->entry,
        .argument =
            image->protocol == KERNEL_LINUX64 ? BOOT_PARAMS_ADDRESS : BOOT_START_INFO_ADDRESS,
    };
    return NULL;
}

static struct err *write_tables(struct guest_memory *memory)
{
    /* Selectors of the 64-bit boot protocol: code 0x10, data 0x18; 0x08 is PVH's 32-bit code. */
    uint8_t gdt[32] = {0};
    struct writer out = writer_of(gdt, sizeof(gdt));
    writer_le64(&out, 0);
    writer_le64(&out, 0x00cf9b000000ffffu);
    writer_le64(&out, 0x00af9b000000ffffu);
    writer_le64(&out, 0x00cf93000000ffffu);
    TRY(copy_in(memory, BOOT_GDT_ADDRESS, gdt, sizeof(gdt)));

    /* The first 4 GiB one to one, in pages of 2 MiB. */
    CLEANUP(cleanup_free) uint8_t *tables = calloc(6, PAGE_BYTES);
    if (tables == NULL)
        return err_new(ERR_NO_MEMORY, "page tables");
    const uint64_t present_writable = 3;
    const uint64_t large = 0x80;
    out = writer_of(tables, PAGE_BYTES);
    writer_le64(&out, (BOOT_PAGE_TABLES_ADDRESS + PAGE_BYTES) | present_writable);
    out = writer_of(tables + PAGE_BYTES, PAGE_BYTES);
    for (uint64_t gib = 0; gib < 4; gib++)
        writer_le64(&out, (BOOT_PAGE_TABLES_ADDRESS + (2 + gib) * PAGE_BYTES) | present_writable);
    out = writer_of(tables + 2 * PAGE_BYTES, (size_t)4 * PAGE_BYTES);
    for (uint64_t page = 0; page < (uint64_t)4 * 512; page++)
        writer_le64(&out, page * 2 * MIB | present_writable | large);
    return copy_in(memory, BOOT_PAGE_TABLES_ADDRESS, tables, (size_t)6 * PAGE_BYTES);
}

struct err *guest_boot_load(struct guest_memory *memory, const struct guest_boot_config *config,
                            struct boot_entry *out_entry)
{
    CLEANUP(cleanup_free) void *data = NULL;
    size_t len = 0;
    struct kernel_image image;

    if (guest_memory_region(memory, 0).bytes <= BOOT_ACPI_END)
        return err_new(ERR_INVALID, "a kernel needs more than 1 MiB of memory");
    TRY(err_wrap(file_read_all(config->kernel, MACHINE_FILE_BYTES_MAX, &data, &len), "kernel"));
    TRY(err_wrap(kernel_image_parse(data, len, &image), "kernel '%s'", config->kernel));
    TRY(write_tables(memory));
    return err_wrap(load_parsed(memory, config, &image, data, out_entry), "kernel '%s'",
                    config->kernel);
}
