/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bzimage.c - Linux's x86 boot protocol, as far as a 64-bit entry needs it.
 * Offsets are those of Documentation/arch/x86/boot.rst.
 * Tested by: kernel_image_test.c.
 */
#include "base/bytes.h"
#include "base/limits.h"
#include "vmm/boot/kernel_image.h"

#define SETUP_START       0x1f1u /* also the setup header's place in boot_params */
#define SETUP_END_MAX     0x290u /* where boot_params goes on behind it */
#define SECTOR_BYTES      512u
#define VERSION_2_12      0x020cu /* the first with xloadflags */
#define XLOAD_KERNEL_64   1u      /* "the kernel has the legacy 64-bit entry point at 0x200" */
#define ENTRY_64_OFFSET   0x200u
#define LOADED_HIGH       1u
#define SETUP_SECTORS_OLD 4u /* "if the field contains 0, the real value is 4" */

struct setup_header {
    uint8_t setup_sectors;
    uint8_t jump_bytes; /* the header ends at 0x202 plus this */
    uint16_t version;
    uint8_t load_flags;
    uint32_t initrd_address_max;
    uint8_t is_relocatable;
    uint16_t xload_flags;
    uint32_t command_line_max;
    uint64_t preferred_address;
    uint32_t init_bytes;
};

static struct setup_header read_header(struct reader *in)
{
    struct setup_header header = {0};

    reader_skip(in, 0x1f1);
    header.setup_sectors = reader_u8(in);
    reader_skip(in, 0x201 - 0x1f2);
    header.jump_bytes = reader_u8(in);
    reader_skip(in, 4); /* "HdrS" */
    header.version = reader_le16(in);
    reader_skip(in, 0x211 - 0x208);
    header.load_flags = reader_u8(in);
    reader_skip(in, 0x22c - 0x212);
    header.initrd_address_max = reader_le32(in);
    reader_skip(in, 0x234 - 0x230);
    header.is_relocatable = reader_u8(in);
    reader_skip(in, 1);
    header.xload_flags = reader_le16(in);
    header.command_line_max = reader_le32(in);
    reader_skip(in, 0x258 - 0x23c);
    header.preferred_address = reader_le64(in);
    header.init_bytes = reader_le32(in);
    return header;
}

static struct err *check_header(const struct setup_header *header)
{
    if (header->version < VERSION_2_12)
        return err_new(ERR_INCOMPATIBLE,
                       "bzImage of boot protocol %u.%02u; 2.12 is the oldest "
                       "that can be booted",
                       header->version >> 8, header->version & 0xffu);
    if ((header->load_flags & LOADED_HIGH) == 0)
        return err_new(ERR_INCOMPATIBLE, "it is a zImage, not a bzImage");
    if ((header->xload_flags & XLOAD_KERNEL_64) == 0)
        return err_new(ERR_INCOMPATIBLE, "bzImage without a 64-bit entry; use a 64-bit kernel");
    if (header->preferred_address > UINT32_MAX || header->init_bytes > MACHINE_FILE_BYTES_MAX)
        return err_new(ERR_INVALID, "bzImage with impossible sizes in its header");
    return NULL;
}

struct err *bzimage_parse(const uint8_t *data, size_t len, struct kernel_image *out_image)
{
    struct reader in = reader_of(data, len);
    struct setup_header header = read_header(&in);
    if (!reader_ok(&in))
        return err_new(ERR_INVALID, "bzImage is truncated");
    TRY(check_header(&header));

    uint64_t sectors = header.setup_sectors == 0 ? SETUP_SECTORS_OLD : header.setup_sectors;
    uint64_t code_offset = (sectors + 1) * SECTOR_BYTES;
    uint64_t setup_end = 0x202u + header.jump_bytes;
    if (code_offset >= len || setup_end > SETUP_END_MAX || setup_end > len)
        return err_new(ERR_INVALID, "bzImage is truncated");

    uint64_t code_bytes = len - code_offset;
    uint64_t init_bytes = header.init_bytes > code_bytes ? header.init_bytes : code_bytes;
    *out_image = (struct kernel_image){
        .protocol = KERNEL_LINUX64,
        .entry = header.preferred_address + ENTRY_64_OFFSET,
        .segments = {{code_offset, code_bytes, header.preferred_address, init_bytes}},
        .segment_count = 1,
        .initrd_address_max = header.initrd_address_max,
        .command_line_max = header.command_line_max,
        .setup_offset = SETUP_START,
        .setup_bytes = setup_end - SETUP_START,
    };
    return NULL;
}
