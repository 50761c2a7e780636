/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_compressed.c - see qcow_compressed.h.
 */
#include "storage/qcow/qcow_compressed.h"

#include <string.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

/* Raw deflate. Writers use a window of 4 KiB, but streams with the largest one are valid too. */
#define DEFLATE_WINDOW_BITS       (-15)
#define DEFLATE_WRITE_WINDOW_BITS (-12)
#define DEFLATE_MEMORY_LEVEL      9

static struct err *broken(void)
{
    return err_new(ERR_INVALID, "a compressed cluster does not unpack; the image is damaged");
}

static struct err *unpack_deflate(const void *data, size_t len, void *out_data, size_t out_len)
{
    z_stream stream = {.next_in = (z_const Bytef *)data,
                       .avail_in = (uInt)len,
                       .next_out = out_data,
                       .avail_out = (uInt)out_len};

    if (inflateInit2(&stream, DEFLATE_WINDOW_BITS) != Z_OK)
        return err_new(ERR_NO_MEMORY, "unpack a compressed cluster");
    int result = inflate(&stream, Z_FINISH);
    bool is_full = stream.avail_out == 0;
    (void)inflateEnd(&stream);
    /* A stream that goes on behind a full cluster is accepted, as QEMU does. */
    return is_full && (result == Z_STREAM_END || result == Z_BUF_ERROR) ? NULL : broken();
}

/* Several frames may follow each other; the sizes that they claim are not trusted. */
static struct err *unpack_zstd(const void *data, size_t len, void *out_data, size_t out_len)
{
    ZSTD_DStream *stream = ZSTD_createDStream();
    ZSTD_inBuffer in = {data, len, 0};
    ZSTD_outBuffer out = {out_data, out_len, 0};
    size_t result = 1;

    if (stream == NULL)
        return err_new(ERR_NO_MEMORY, "unpack a compressed cluster");
    while (out.pos < out.size && in.pos < in.size) {
        size_t in_before = in.pos, out_before = out.pos;
        result = ZSTD_decompressStream(stream, &out, &in);
        if (ZSTD_isError(result) || (in.pos == in_before && out.pos == out_before))
            break;
    }
    (void)ZSTD_freeDStream(stream);
    return out.pos == out.size && !ZSTD_isError(result) ? NULL : broken();
}

struct err *qcow_compressed_unpack(enum qcow_compression compression, const void *data, size_t len,
                                   void *out_data, size_t out_len)
{
    if (compression == QCOW_COMPRESSION_ZSTD)
        return unpack_zstd(data, len, out_data, out_len);
    return unpack_deflate(data, len, out_data, out_len);
}

static struct err *pack_deflate(const void *data, size_t len, void *out_data, size_t capacity,
                                size_t *out_len)
{
    z_stream stream = {.next_in = (z_const Bytef *)data,
                       .avail_in = (uInt)len,
                       .next_out = out_data,
                       .avail_out = (uInt)capacity};

    if (deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, DEFLATE_WRITE_WINDOW_BITS,
                     DEFLATE_MEMORY_LEVEL, Z_DEFAULT_STRATEGY) != Z_OK)
        return err_new(ERR_NO_MEMORY, "pack a cluster");
    int result = deflate(&stream, Z_FINISH);
    *out_len = result == Z_STREAM_END ? capacity - stream.avail_out : 0;
    (void)deflateEnd(&stream);
    return NULL;
}

static struct err *pack_zstd(const void *data, size_t len, void *out_data, size_t capacity,
                             size_t *out_len)
{
    size_t packed = ZSTD_compress(out_data, capacity, data, len, ZSTD_CLEVEL_DEFAULT);

    if (ZSTD_isError(packed) && ZSTD_getErrorCode(packed) == ZSTD_error_memory_allocation)
        return err_new(ERR_NO_MEMORY, "pack a cluster");
    *out_len = ZSTD_isError(packed) ? 0 : packed;
    return NULL;
}

struct err *qcow_compressed_pack(enum qcow_compression compression, const void *data, size_t len,
                                 void *out_data, size_t capacity, size_t *out_len)
{
    if (compression == QCOW_COMPRESSION_ZSTD)
        return pack_zstd(data, len, out_data, capacity, out_len);
    return pack_deflate(data, len, out_data, capacity, out_len);
}
