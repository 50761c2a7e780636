/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_header.c - see qcow_header.h.
 */
#include "storage/qcow/qcow_header.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/limits.h"
#include "storage/host_file.h"

#define FIRST_SECTOR_BYTES     512u
#define HEAD_BYTES             4096u /* of the file, which seldom has a longer header */
#define HEADER_BYTES_AT        100u
#define L1_BYTES_MAX           (32 * MIB)
#define REFCOUNT_TABLE_BYTES   (8 * MIB)
#define SNAPSHOTS_MAX          65536u
#define REFCOUNT_ORDER_MAX     6u
#define BACKING_NAME_BYTES_MAX 1023u
#define EXTENSION_HEADER_BYTES 8u

#define FEATURE_ENTRY_BYTES       48u
#define FEATURE_NAME_BYTES        46u
#define FEATURE_KIND_INCOMPATIBLE 0u

/* Where the header's own words for features are. */
struct extensions {
    const uint8_t *feature_names;
    size_t feature_names_bytes;
};

static void parse_fields(struct reader *in, struct qcow_header *header)
{
    header->backing_offset = reader_be64(in);
    header->backing_bytes = reader_be32(in);
    header->cluster_bits = reader_be32(in);
    /* A size that is not whole sectors loses its last part, as in QEMU. */
    header->virtual_bytes = align_down(reader_be64(in), FIRST_SECTOR_BYTES);
    header->crypt_method = reader_be32(in);
    header->l1_entries = reader_be32(in);
    header->l1_offset = reader_be64(in);
    header->refcount_table_offset = reader_be64(in);
    header->refcount_table_clusters = reader_be32(in);
    header->snapshot_count = reader_be32(in);
    header->snapshots_offset = reader_be64(in);
    header->refcount_order = 4;
    header->header_bytes = QCOW_HEADER_V2_BYTES;
    if (header->version == 2)
        return;

    header->incompatible = reader_be64(in);
    header->compatible = reader_be64(in);
    header->autoclear = reader_be64(in);
    header->refcount_order = reader_be32(in);
    header->header_bytes = reader_be32(in);
    if (header->header_bytes > 104)
        header->compression = reader_u8(in);
}

/* What the image itself calls an incompatible feature, as far as it can be printed; empty: nothing.
 * qcow2, "Feature name table": entries of kind, bit and name, padded with zeros. */
static void find_feature_name(const uint8_t *table, size_t len, int bit,
                              char out_name[FEATURE_NAME_BYTES + 1])
{
    struct reader in = reader_of(table, len);

    out_name[0] = '\0';
    while (reader_left(&in) >= FEATURE_ENTRY_BYTES) {
        uint8_t kind = reader_u8(&in), number = reader_u8(&in);
        const uint8_t *name = reader_take(&in, FEATURE_NAME_BYTES);
        if (kind != FEATURE_KIND_INCOMPATIBLE || number != bit)
            continue;
        size_t i = 0;
        for (; i < FEATURE_NAME_BYTES && name[i] != '\0'; i++)
            out_name[i] = name[i] >= ' ' && name[i] <= '~' ? (char)name[i] : '?';
        out_name[i] = '\0';
    }
}

static struct err *unknown_feature(int bit, const struct extensions *extensions)
{
    char name[FEATURE_NAME_BYTES + 1];

    find_feature_name(extensions->feature_names, extensions->feature_names_bytes, bit, name);
    return err_new(ERR_INCOMPATIBLE,
                   "the image needs the unknown feature '%s' (bit %d); convert it with the program "
                   "that made it",
                   name[0] == '\0' ? "?" : name, bit);
}

static struct err *check_features(const struct qcow_header *header,
                                  const struct extensions *extensions)
{
    uint64_t known = QCOW_INCOMPATIBLE_DIRTY | QCOW_INCOMPATIBLE_CORRUPT |
                     QCOW_INCOMPATIBLE_COMPRESSION | QCOW_INCOMPATIBLE_EXTENDED_L2;
    uint64_t unknown = header->incompatible & ~known;

    if (header->crypt_method != 0)
        return err_new(ERR_INCOMPATIBLE,
                       "the image is encrypted (method %" PRIu32 "), which is not supported; "
                       "decrypt it with 'qemu-img convert'",
                       header->crypt_method);
    if (unknown & QCOW_INCOMPATIBLE_DATA_FILE)
        return err_new(ERR_INCOMPATIBLE, "the image keeps its data in an external data file, which "
                                         "is not supported; convert it with 'qemu-img convert'");
    if (unknown != 0)
        return unknown_feature(__builtin_ctzll(unknown), extensions);

    bool has_type = header->compression != QCOW_COMPRESSION_DEFLATE;
    if (has_type != ((header->incompatible & QCOW_INCOMPATIBLE_COMPRESSION) != 0))
        return err_new(ERR_INVALID, "compression type %d contradicts the feature bits",
                       (int)header->compression);
    if (header->compression > QCOW_COMPRESSION_ZSTD)
        return err_new(ERR_INCOMPATIBLE, "compression type %d is unknown",
                       (int)header->compression);
    return NULL;
}

/* A table lies in whole clusters behind the header and inside the file, whose last cluster may be
 * cut short. */
static struct err *check_table(const struct qcow_header *header, const char *what, uint64_t offset,
                               uint64_t bytes, uint64_t file_bytes)
{
    uint64_t cluster_bytes = (uint64_t)1 << header->cluster_bits;

    if (offset % cluster_bytes != 0)
        return err_new(ERR_INVALID, "the %s at %" PRIu64 " is not aligned to a cluster", what,
                       offset);
    if (offset > DISK_BYTES_MAX)
        return err_new(ERR_INVALID, "the %s at %" PRIu64 " lies past the end of any file", what,
                       offset);
    if (bytes == 0)
        return NULL;
    if (offset == 0)
        return err_new(ERR_INVALID, "the %s overlaps the header", what);
    if (file_bytes > UINT64_MAX / 2 ||
        !range_is_within(offset, bytes, align_up(file_bytes, cluster_bytes)))
        return err_new(ERR_INVALID, "the %s at %" PRIu64 " reaches past the end of the file", what,
                       offset);
    return NULL;
}

static struct err *check_tables(const struct qcow_header *header, uint64_t file_bytes)
{
    uint64_t cluster_bytes = (uint64_t)1 << header->cluster_bits;
    uint64_t l1_bytes = (uint64_t)header->l1_entries * 8;
    uint64_t table_bytes = (uint64_t)header->refcount_table_clusters * cluster_bytes;
    uint64_t reach_of_entry = (uint64_t)1 << qcow_header_l1_reach_bits(header);

    if (header->virtual_bytes > DISK_BYTES_MAX)
        return err_new(ERR_INVALID, "a virtual size of %" PRIu64 " bytes is too large",
                       header->virtual_bytes);
    if (l1_bytes > L1_BYTES_MAX)
        return err_new(ERR_INVALID, "an L1 table of %" PRIu32 " entries is too large",
                       header->l1_entries);
    if (header->l1_entries < divide_up(header->virtual_bytes, reach_of_entry))
        return err_new(ERR_INVALID,
                       "an L1 table of %" PRIu32 " entries is too small for %" PRIu64 " bytes",
                       header->l1_entries, header->virtual_bytes);
    if (table_bytes == 0 || table_bytes > REFCOUNT_TABLE_BYTES)
        return err_new(ERR_INVALID,
                       "a refcount table of %" PRIu32 " clusters is not in 1..%" PRIu64,
                       header->refcount_table_clusters, REFCOUNT_TABLE_BYTES / cluster_bytes);
    if (header->snapshot_count > SNAPSHOTS_MAX)
        return err_new(ERR_INVALID, "%" PRIu32 " internal snapshots; the most is %u",
                       header->snapshot_count, SNAPSHOTS_MAX);
    TRY(check_table(header, "L1 table", header->l1_offset, l1_bytes, file_bytes));
    TRY(check_table(header, "refcount table", header->refcount_table_offset, table_bytes,
                    file_bytes));
    TRY(check_table(header, "snapshot table", header->snapshots_offset, 0, file_bytes));
    if (header->l1_offset < header->refcount_table_offset + table_bytes &&
        header->refcount_table_offset < header->l1_offset + l1_bytes)
        return err_new(ERR_INVALID, "the L1 and refcount tables overlap");
    return NULL;
}

static struct err *check_header(const struct qcow_header *header)
{
    if (header->cluster_bits < QCOW_CLUSTER_BITS_MIN ||
        header->cluster_bits > QCOW_CLUSTER_BITS_MAX)
        return err_new(ERR_INVALID, "clusters of 2^%" PRIu32 " bytes are not in 2^9..2^21",
                       header->cluster_bits);

    uint64_t cluster_bytes = (uint64_t)1 << header->cluster_bits;
    if (header->version == 3 && (header->header_bytes < 104 || header->header_bytes % 8 != 0 ||
                                 header->header_bytes > cluster_bytes))
        return err_new(ERR_INVALID, "a header of %" PRIu32 " bytes is malformed",
                       header->header_bytes);
    if (qcow_header_has_extended_l2(header) &&
        header->cluster_bits < QCOW_EXTENDED_L2_CLUSTER_BITS_MIN)
        return err_new(ERR_INVALID,
                       "extended L2 entries need clusters of 16 KiB at least, not of %" PRIu64
                       " bytes",
                       cluster_bytes);
    if (header->refcount_order > REFCOUNT_ORDER_MAX)
        return err_new(ERR_INVALID, "refcounts of 2^%" PRIu32 " bits are not in 2^0..2^6",
                       header->refcount_order);
    return NULL;
}

static struct err *parse_bitmaps(const uint8_t *data, size_t len, struct qcow_header *header)
{
    struct reader in = reader_of(data, len);

    if (header->has_bitmap_extension || len != 24)
        return err_new(ERR_INVALID, "the bitmaps' extension is malformed");
    header->has_bitmap_extension = true;
    header->bitmap_count = reader_be32(&in);
    reader_skip(&in, 4);
    header->bitmap_directory_bytes = reader_be64(&in);
    header->bitmap_directory_offset = reader_be64(&in);
    return NULL;
}

static struct err *parse_extensions(struct reader *in, struct qcow_header *header,
                                    struct extensions *extensions)
{
    while (reader_left(in) >= EXTENSION_HEADER_BYTES) {
        uint32_t type = reader_be32(in);
        uint32_t len = reader_be32(in);
        const uint8_t *data = reader_take(in, len);
        if (data == NULL)
            return err_new(ERR_INVALID,
                           "header extension 0x%08" PRIx32 " of %" PRIu32 " bytes does not fit",
                           type, len);
        if (type == QCOW_EXTENSION_END)
            break;
        if (type == QCOW_EXTENSION_BACKING_FORMAT) {
            if (len >= sizeof(header->backing_format) || header->backing_format[0] != '\0')
                return err_new(ERR_INVALID, "the backing format's extension is malformed");
            memcpy(header->backing_format, data, len);
        }
        if (type == QCOW_EXTENSION_BITMAPS)
            TRY(parse_bitmaps(data, len, header));
        if (type == QCOW_EXTENSION_FEATURE_NAMES)
            *extensions = (struct extensions){data, len};
        reader_skip(in, MIN((size_t)-len % 8, reader_left(in)));
    }
    return NULL;
}

static struct err *parse_backing_name(const uint8_t *data, size_t len, struct qcow_header *header)
{
    if (header->backing_offset == 0)
        return NULL;
    if (header->backing_bytes == 0 || header->backing_bytes > BACKING_NAME_BYTES_MAX ||
        header->backing_offset < header->header_bytes ||
        !range_is_within(header->backing_offset, header->backing_bytes, len))
        return err_new(ERR_INVALID, "the backing file's name lies outside the header");

    memcpy(header->backing_name, data + header->backing_offset, header->backing_bytes);
    if (strlen(header->backing_name) != header->backing_bytes)
        return err_new(ERR_INVALID, "the backing file's name holds a zero byte");
    return NULL;
}

struct err *qcow_header_parse(const void *data, size_t len, uint64_t file_bytes,
                              struct qcow_header *out_header)
{
    struct qcow_header header = {0};
    struct reader in = reader_of(data, len);

    if (reader_be32(&in) != QCOW_MAGIC)
        return err_new(
            ERR_INVALID,
            "it is not a qcow2 image; say that it is raw if it is, since formats are not "
            "guessed, and convert others with 'qemu-img convert -O qcow2'");
    header.version = reader_be32(&in);
    if (reader_ok(&in) && header.version != 2 && header.version != 3)
        return err_new(ERR_INCOMPATIBLE,
                       "qcow version %" PRIu32 " is not supported; convert it with 'qemu-img "
                       "convert -O qcow2'",
                       header.version);
    parse_fields(&in, &header);
    if (!reader_ok(&in))
        return err_new(ERR_INVALID, "the header is cut short");
    TRY(check_header(&header));

    struct extensions extensions = {.feature_names = NULL};
    size_t cluster_len = MIN(len, (size_t)1 << header.cluster_bits);
    size_t extensions_end = cluster_len;
    if (header.backing_offset != 0 && header.backing_offset < cluster_len)
        extensions_end = (size_t)header.backing_offset;
    if (header.header_bytes < extensions_end) {
        in = reader_of((const uint8_t *)data + header.header_bytes,
                       extensions_end - header.header_bytes);
        TRY(parse_extensions(&in, &header, &extensions));
    }
    TRY(check_features(&header, &extensions));
    TRY(check_tables(&header, file_bytes));
    TRY(parse_backing_name(data, cluster_len, &header));
    *out_header = header;
    return NULL;
}

/* Does the header, with extensions and backing name, lie within the first `len` bytes for sure? */
static bool is_within(const uint8_t *data, size_t len)
{
    struct reader in = reader_of(data, len);

    reader_skip(&in, 8);
    uint64_t name_at = reader_be64(&in);
    uint32_t name_bytes = reader_be32(&in);
    size_t at = QCOW_HEADER_V2_BYTES;
    if (name_at != 0 && !range_is_within(name_at, name_bytes, len))
        return false;
    if (data[7] != 2) {
        in = reader_of(data + HEADER_BYTES_AT, 4);
        at = reader_be32(&in);
    }
    while (at <= len && len - at >= EXTENSION_HEADER_BYTES) {
        in = reader_of(data + at, EXTENSION_HEADER_BYTES);
        uint32_t type = reader_be32(&in), bytes = reader_be32(&in);
        if (type == QCOW_EXTENSION_END)
            return true;
        at += EXTENSION_HEADER_BYTES + align_up(bytes, 8);
    }
    return false;
}

/* A chain of many layers has as many headers; clusters are large, and what is in them is not. */
struct err *qcow_header_read(struct host_file *file, struct qcow_header *out_header)
{
    uint64_t file_bytes;
    uint8_t head[HEAD_BYTES];

    TRY(host_file_size(file, &file_bytes));
    TRY(host_file_read_bytes(file, head, sizeof(head), 0));
    size_t head_len = (size_t)MIN(file_bytes, (uint64_t)sizeof(head));

    /* The cluster size decides how much belongs to the header. */
    struct reader in = reader_of(head, sizeof(head));
    reader_skip(&in, 20);
    uint32_t cluster_bits = reader_be32(&in);
    cluster_bits = MIN(MAX(cluster_bits, QCOW_CLUSTER_BITS_MIN), QCOW_CLUSTER_BITS_MAX);

    size_t len = (size_t)MIN(file_bytes, (uint64_t)1 << cluster_bits);
    if (len <= head_len || is_within(head, head_len))
        return qcow_header_parse(head, MIN(len, head_len), file_bytes, out_header);
    CLEANUP(cleanup_free) uint8_t *data = malloc(len + 1);
    if (data == NULL)
        return err_new(ERR_NO_MEMORY, "read the header of '%s'", file->path);
    TRY(host_file_read_bytes(file, data, len, 0));
    return qcow_header_parse(data, len, file_bytes, out_header);
}

struct err *qcow_header_check_writable(const struct qcow_header *header)
{
    if (header->incompatible & QCOW_INCOMPATIBLE_CORRUPT)
        return err_new(ERR_STATE, "the image is marked corrupt; repair a copy of it with "
                                  "'vm-disk check -r all'");
    return NULL;
}

static void build_fields(struct writer *out, const struct qcow_header *header)
{
    writer_be32(out, QCOW_MAGIC);
    writer_be32(out, header->version);
    writer_be64(out, header->backing_offset);
    writer_be32(out, header->backing_bytes);
    writer_be32(out, header->cluster_bits);
    writer_be64(out, header->virtual_bytes);
    writer_be32(out, header->crypt_method);
    writer_be32(out, header->l1_entries);
    writer_be64(out, header->l1_offset);
    writer_be64(out, header->refcount_table_offset);
    writer_be32(out, header->refcount_table_clusters);
    writer_be32(out, header->snapshot_count);
    writer_be64(out, header->snapshots_offset);
    if (header->version == 2)
        return;

    writer_be64(out, header->incompatible);
    writer_be64(out, header->compatible);
    writer_be64(out, header->autoclear);
    writer_be32(out, header->refcount_order);
    writer_be32(out, QCOW_HEADER_V3_BYTES);
    writer_u8(out, (uint8_t)header->compression);
    writer_bytes(out, (uint8_t[7]){0}, 7);
}

struct err *qcow_header_write_field(struct host_file *file, size_t at, uint64_t value)
{
    uint8_t field[8];
    struct writer out = writer_of(field, sizeof(field));

    writer_be64(&out, value);
    TRY(host_file_write_bytes(file, field, sizeof(field), at));
    return host_file_sync(file);
}

struct err *qcow_header_build(const struct qcow_header *header, void *out_data, size_t len)
{
    struct qcow_header copy = *header;
    struct writer out = writer_of(out_data, len);
    size_t format_bytes = strlen(copy.backing_format);
    size_t at = copy.version == 2 ? QCOW_HEADER_V2_BYTES : QCOW_HEADER_V3_BYTES;

    memset(out_data, 0, len);
    copy.backing_bytes = (uint32_t)strlen(copy.backing_name);
    if (format_bytes > 0)
        at += EXTENSION_HEADER_BYTES + align_up(format_bytes, 8);
    at += EXTENSION_HEADER_BYTES;
    copy.backing_offset = copy.backing_bytes == 0 ? 0 : at;

    build_fields(&out, &copy);
    if (format_bytes > 0) {
        writer_be32(&out, QCOW_EXTENSION_BACKING_FORMAT);
        writer_be32(&out, (uint32_t)format_bytes);
        writer_bytes(&out, copy.backing_format, align_up(format_bytes, 8));
    }
    writer_be64(&out, QCOW_EXTENSION_END);
    writer_bytes(&out, copy.backing_name, copy.backing_bytes);
    if (!writer_ok(&out))
        return err_new(ERR_INVALID,
                       "the backing file's name '%s' is too long for clusters of %zu bytes",
                       copy.backing_name, len);
    return NULL;
}
