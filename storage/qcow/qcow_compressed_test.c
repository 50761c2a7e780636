/* SPDX-License-Identifier: Apache-2.0 */
#include <stdint.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "base/unit_test.h"
#include "storage/qcow/qcow_compressed.h"

#define CLUSTER_BYTES 65536u

static uint8_t plain[CLUSTER_BYTES + 512], packed[2 * CLUSTER_BYTES], unpacked[CLUSTER_BYTES];

static void fill_plain(void)
{
    for (size_t i = 0; i < sizeof(plain); i++)
        plain[i] = (uint8_t)(i * i / 300);
}

static size_t pack_deflate(size_t len, int window_bits)
{
    z_stream stream = {
        .next_in = plain, .avail_in = (uInt)len, .next_out = packed, .avail_out = sizeof(packed)};

    assert_int_equal(deflateInit2(&stream, 9, Z_DEFLATED, window_bits, 9, Z_DEFAULT_STRATEGY),
                     Z_OK);
    assert_int_equal(deflate(&stream, Z_FINISH), Z_STREAM_END);
    size_t packed_len = sizeof(packed) - stream.avail_out;
    assert_int_equal(deflateEnd(&stream), Z_OK);
    return packed_len;
}

static struct err *unpack(enum qcow_compression compression, size_t len)
{
    return qcow_compressed_unpack(compression, packed, len, unpacked, sizeof(unpacked));
}

TEST(deflate_streams_of_any_window_are_read)
{
    fill_plain();
    for (int window_bits = -15; window_bits <= -12; window_bits += 3) {
        size_t len = pack_deflate(CLUSTER_BYTES, window_bits);
        memset(packed + len, 0xff, 600); /* the next cluster's bytes */
        ASSERT_OK(unpack(QCOW_COMPRESSION_DEFLATE, len + 600));
        assert_memory_equal(unpacked, plain, CLUSTER_BYTES);
    }
}

TEST(a_deflate_stream_that_is_short_or_wrapped_or_noise_is_refused)
{
    fill_plain();
    size_t len = pack_deflate(CLUSTER_BYTES - 1, -12);
    assert_fails(unpack(QCOW_COMPRESSION_DEFLATE, len), ERR_INVALID);
    len = pack_deflate(CLUSTER_BYTES, -12);
    assert_fails(unpack(QCOW_COMPRESSION_DEFLATE, len / 2), ERR_INVALID);
    len = pack_deflate(CLUSTER_BYTES, 15);
    assert_fails(unpack(QCOW_COMPRESSION_DEFLATE, len), ERR_INVALID);
    memset(packed, 0xff, sizeof(packed));
    assert_fails(unpack(QCOW_COMPRESSION_DEFLATE, 4096), ERR_INVALID);
}

TEST(zstd_frames_are_read_one_after_the_other)
{
    fill_plain();
    size_t first = ZSTD_compress(packed, sizeof(packed), plain, 40000, 3);
    assert_false(ZSTD_isError(first));
    size_t second = ZSTD_compress(packed + first, sizeof(packed) - first, plain + 40000,
                                  CLUSTER_BYTES - 40000, 3);
    assert_false(ZSTD_isError(second));
    memset(packed + first + second, 0, 400);

    ASSERT_OK(unpack(QCOW_COMPRESSION_ZSTD, first + second + 400));
    assert_memory_equal(unpacked, plain, CLUSTER_BYTES);
    assert_fails(unpack(QCOW_COMPRESSION_ZSTD, first), ERR_INVALID);
    assert_fails(unpack(QCOW_COMPRESSION_ZSTD, first + second - 20), ERR_INVALID);
    memset(packed, 0xff, sizeof(packed));
    assert_fails(unpack(QCOW_COMPRESSION_ZSTD, 4096), ERR_INVALID);
}

TEST(what_is_packed_can_be_unpacked)
{
    for (int compression = QCOW_COMPRESSION_DEFLATE; compression <= QCOW_COMPRESSION_ZSTD;
         compression++) {
        size_t len = 0;
        fill_plain();
        ASSERT_OK(qcow_compressed_pack((enum qcow_compression)compression, plain, CLUSTER_BYTES,
                                       packed, CLUSTER_BYTES, &len));
        assert_true(len > 0 && len < CLUSTER_BYTES);
        ASSERT_OK(unpack((enum qcow_compression)compression, len));
        assert_memory_equal(unpacked, plain, CLUSTER_BYTES);
    }
}

TEST(a_stream_that_does_not_fit_is_told)
{
    for (int compression = QCOW_COMPRESSION_DEFLATE; compression <= QCOW_COMPRESSION_ZSTD;
         compression++) {
        size_t len = 1;
        fill_plain();
        ASSERT_OK(qcow_compressed_pack((enum qcow_compression)compression, plain, CLUSTER_BYTES,
                                       packed, 100, &len));
        assert_int_equal(len, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(deflate_streams_of_any_window_are_read),
        cmocka_unit_test(a_deflate_stream_that_is_short_or_wrapped_or_noise_is_refused),
        cmocka_unit_test(zstd_frames_are_read_one_after_the_other),
        cmocka_unit_test(what_is_packed_can_be_unpacked),
        cmocka_unit_test(a_stream_that_does_not_fit_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
