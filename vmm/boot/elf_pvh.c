/* SPDX-License-Identifier: Apache-2.0 */
/*
 * elf_pvh.c - ELF kernels, 32 and 64 bits, with the note that names their PVH entry.
 * Tested by: kernel_image_test.c.
 */
#include <elf.h>
#include <stdbool.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked_math.h"
#include "base/limits.h"
#include "vmm/boot/kernel_image.h"

#define PROGRAM_HEADERS_MAX 64u
#define NOTE_BYTES_MAX      65536u
#define NOTE_PHYS32_ENTRY   18u /* XEN_ELFNOTE_PHYS32_ENTRY */
#define COMMAND_LINE_MAX    MACHINE_CMDLINE_MAX

struct elf_header {
    bool is_64;
    uint64_t table_offset;
    uint16_t entry_bytes;
    uint16_t entry_count;
};

struct program_header {
    uint32_t type;
    uint64_t offset;
    uint64_t address;
    uint64_t file_bytes;
    uint64_t memory_bytes;
};

static struct err *read_header(const uint8_t *data, size_t len, struct elf_header *out_header)
{
    struct reader in = reader_of(data, len);
    struct elf_header header = {0};

    reader_skip(&in, EI_CLASS);
    header.is_64 = reader_u8(&in) == ELFCLASS64;
    uint8_t byte_order = reader_u8(&in);
    reader_skip(&in, EI_NIDENT - EI_DATA - 1);
    uint16_t type = reader_le16(&in);
    uint16_t machine = reader_le16(&in);
    reader_skip(&in, 4);
    reader_skip(&in, header.is_64 ? 8 : 4); /* e_entry: PVH has its own */
    header.table_offset = header.is_64 ? reader_le64(&in) : reader_le32(&in);
    reader_skip(&in, header.is_64 ? 8 : 4);
    reader_skip(&in, 6); /* e_flags, e_ehsize */
    header.entry_bytes = reader_le16(&in);
    header.entry_count = reader_le16(&in);
    if (!reader_ok(&in))
        return err_new(ERR_INVALID, "ELF header is truncated");

    if (byte_order != ELFDATA2LSB || (machine != EM_X86_64 && machine != EM_386) ||
        (type != ET_EXEC && type != ET_DYN))
        return err_new(ERR_INCOMPATIBLE, "it is not an x86 ELF executable");
    size_t entry_bytes = header.is_64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);
    if (header.entry_bytes != entry_bytes || header.entry_count == 0 ||
        header.entry_count > PROGRAM_HEADERS_MAX)
        return err_new(ERR_INVALID, "ELF file with %u program headers of %u bytes",
                       header.entry_count, header.entry_bytes);
    *out_header = header;
    return NULL;
}

static struct program_header read_program_header(struct reader *in, bool is_64)
{
    struct program_header header = {.type = reader_le32(in)};

    if (is_64)
        reader_skip(in, 4); /* p_flags */
    header.offset = is_64 ? reader_le64(in) : reader_le32(in);
    reader_skip(in, is_64 ? 8 : 4); /* p_vaddr */
    header.address = is_64 ? reader_le64(in) : reader_le32(in);
    header.file_bytes = is_64 ? reader_le64(in) : reader_le32(in);
    header.memory_bytes = is_64 ? reader_le64(in) : reader_le32(in);
    reader_skip(in, 8); /* p_align; before it p_flags of the 32-bit kind */
    return header;
}

/* Notes: name size, description size, type; then both, each padded to 4 bytes. */
static bool find_entry(const uint8_t *notes, size_t len, uint64_t *out_entry)
{
    struct reader in = reader_of(notes, len);

    while (reader_left(&in) >= 12) {
        uint32_t name_bytes = reader_le32(&in);
        uint32_t value_bytes = reader_le32(&in);
        uint32_t type = reader_le32(&in);
        const uint8_t *name = reader_take(&in, (size_t)align_up(name_bytes, 4));
        const uint8_t *value = reader_take(&in, (size_t)align_up(value_bytes, 4));
        if (name == NULL || value == NULL)
            return false;
        if (type != NOTE_PHYS32_ENTRY || name_bytes != 4 || memcmp(name, "Xen", 4) != 0)
            continue;
        if (value_bytes < 4)
            return false;
        struct reader entry = reader_of(value, value_bytes);
        *out_entry = value_bytes >= 8 ? reader_le64(&entry) : reader_le32(&entry);
        return *out_entry <= UINT32_MAX;
    }
    return false;
}

static struct err *add_segment(struct kernel_image *image, const struct program_header *header)
{
    if (header->memory_bytes == 0)
        return NULL;
    if (image->segment_count == KERNEL_SEGMENTS_MAX)
        return err_new(ERR_INCOMPATIBLE, "ELF file with more than %u segments to load",
                       KERNEL_SEGMENTS_MAX);
    image->segments[image->segment_count++] = (struct kernel_segment){
        header->offset, header->file_bytes, header->address, header->memory_bytes};
    return NULL;
}

struct err *elf_pvh_parse(const uint8_t *data, size_t len, struct kernel_image *out_image)
{
    struct elf_header elf;
    TRY(read_header(data, len, &elf));
    uint64_t table_bytes = (uint64_t)elf.entry_bytes * elf.entry_count;
    if (!range_is_within(elf.table_offset, table_bytes, len))
        return err_new(ERR_INVALID, "ELF program headers are truncated");

    struct kernel_image image = {
        .protocol = KERNEL_PVH,
        .initrd_address_max = UINT32_MAX,
        .command_line_max = COMMAND_LINE_MAX,
    };
    bool has_entry = false;
    struct reader in = reader_of(data + elf.table_offset, (size_t)table_bytes);
    for (unsigned i = 0; i < elf.entry_count; i++) {
        struct program_header header = read_program_header(&in, elf.is_64);
        if (header.type == PT_LOAD)
            TRY(add_segment(&image, &header));
        if (header.type == PT_NOTE && !has_entry && header.file_bytes <= NOTE_BYTES_MAX &&
            range_is_within(header.offset, header.file_bytes, len))
            has_entry = find_entry(data + header.offset, (size_t)header.file_bytes, &image.entry);
    }
    if (image.segment_count == 0)
        return err_new(ERR_INVALID, "ELF file without anything to load");
    if (!has_entry)
        return err_new(ERR_INCOMPATIBLE, "ELF file without a PVH entry note; build the kernel with "
                                         "CONFIG_PVH, or use its bzImage");
    *out_image = image;
    return NULL;
}
