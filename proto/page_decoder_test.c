/* SPDX-License-Identifier: Apache-2.0 */
/* The encoder and the decoder, against each other. */
#include <stdlib.h>
#include <string.h>

#include "base/bitmap.h"
#include "base/unit_test.h"
#include "proto/page_decoder.h"
#include "proto/page_encoder.h"

#define PAGES ((size_t)2 * PAGE_BLOCK_PAGES)

static uint8_t *source;
static uint8_t *target;
static uint64_t touched[2];
static struct page_encoder *encoder;
static struct page_decoder *decoder;

/* Every fourth page is zero, every fourth compresses, the rest are noise. */
static int set_up(void **state)
{
    uint64_t noise = 7;

    (void)state;
    source = aligned_alloc(PAGE_BYTES, PAGES * PAGE_BYTES);
    target = aligned_alloc(PAGE_BYTES, PAGES * PAGE_BYTES);
    assert_non_null(source);
    assert_non_null(target);
    memset(target, 0, PAGES * PAGE_BYTES);
    memset(touched, 0, sizeof(touched));
    for (size_t i = 0; i < PAGES * PAGE_BYTES; i++) {
        size_t page = i / PAGE_BYTES;
        noise = noise * 6364136223846793005u + 1442695040888963407u;
        source[i] = (uint8_t)(page % 4 == 0 ? 0 : page % 4 == 1 ? page : noise >> 56);
    }
    ASSERT_OK(page_encoder_create(&encoder));
    ASSERT_OK(page_decoder_create(target, PAGES, touched, &decoder));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    page_encoder_destroy(encoder);
    page_decoder_destroy(decoder);
    free(source);
    free(target);
    return 0;
}

/* Carries what was encoded over to the target. */
static struct err *carry(void)
{
    size_t left = 0;
    const uint8_t *payload = page_encoder_payload(encoder, &left);
    uint8_t *to = NULL;
    size_t len = 0;

    TRY(page_decoder_begin(decoder, page_encoder_pages(encoder), left));
    while (page_decoder_wants(decoder, &to, &len)) {
        memcpy(to, payload, len);
        payload += len;
        TRY(page_decoder_filled(decoder));
    }
    return page_decoder_end(decoder);
}

static void move_block(size_t block, uint64_t bits, bool with_lz4)
{
    page_encoder_encode(encoder, source + block * PAGE_BLOCK_PAGES * PAGE_BYTES,
                        block * PAGE_BLOCK_PAGES, bits, with_lz4);
    ASSERT_OK(carry());
}

TEST(blocks_arrive_as_they_were_left)
{
    move_block(0, UINT64_MAX, false);
    move_block(1, UINT64_MAX, true);

    assert_memory_equal(source, target, PAGES * PAGE_BYTES);
    struct page_counts counts = page_encoder_counts(encoder);
    assert_int_equal(counts.zero_pages, PAGES / 4);
    assert_int_equal(counts.zero_pages + counts.raw_pages + counts.lz4_pages, PAGES);
}

TEST(only_the_pages_asked_for_are_sent)
{
    move_block(1, 0x6, false);

    assert_memory_equal(source + 65 * PAGE_BYTES, target + 65 * PAGE_BYTES, 2 * PAGE_BYTES);
    assert_true(target[67 * PAGE_BYTES] == 0);
}

TEST(compressible_pages_are_compressed)
{
    memset(source, 'x', (size_t)PAGE_BLOCK_PAGES * PAGE_BYTES);

    move_block(0, UINT64_MAX, true);

    struct page_counts counts = page_encoder_counts(encoder);
    assert_int_equal(counts.lz4_pages, PAGE_BLOCK_PAGES);
    assert_true(counts.payload_bytes < PAGE_BLOCK_PAGES * PAGE_BYTES / 10);
    assert_memory_equal(source, target, (size_t)PAGE_BLOCK_PAGES * PAGE_BYTES);
}

TEST(a_page_that_became_zero_is_zeroed)
{
    move_block(0, UINT64_MAX, false);
    memset(source, 0, (size_t)PAGE_BLOCK_PAGES * PAGE_BYTES);

    move_block(0, UINT64_MAX, false);

    assert_memory_equal(source, target, (size_t)PAGE_BLOCK_PAGES * PAGE_BYTES);
}

TEST(a_changed_byte_is_noticed)
{
    size_t len = 0;

    page_encoder_encode(encoder, source, 0, UINT64_MAX, false);
    uint8_t *payload = (uint8_t *)page_encoder_payload(encoder, &len);
    payload[len / 2] ^= 1;

    assert_fails(carry(), ERR_INVALID);
}

TEST(pages_that_would_land_elsewhere_are_noticed)
{
    page_encoder_encode(encoder, source, 0, 0x4, false);
    page_encoder_pages(encoder)->runs[0]->first = 9;

    assert_fails(carry(), ERR_INVALID);
}

TEST(runs_outside_the_memory_are_refused_before_a_byte_is_written)
{
    page_encoder_encode(encoder, source, 0, 0x4, false);
    page_encoder_pages(encoder)->runs[0]->first = UINT64_MAX;
    assert_fails(carry(), ERR_INVALID);

    page_encoder_pages(encoder)->runs[0]->first = PAGES - 1;
    page_encoder_pages(encoder)->runs[0]->count = 2;
    assert_fails(carry(), ERR_INVALID);
}

TEST(runs_that_do_not_add_up_to_the_payload_are_refused)
{
    page_encoder_encode(encoder, source, 0, 0x4, false);

    assert_fails(page_decoder_begin(decoder, page_encoder_pages(encoder), PAGE_BYTES - 1),
                 ERR_INVALID);
    assert_fails(page_decoder_begin(decoder, page_encoder_pages(encoder), PAGE_BYTES + 1),
                 ERR_INVALID);
}

#define WITH_BOTH(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_BOTH(blocks_arrive_as_they_were_left),
        WITH_BOTH(only_the_pages_asked_for_are_sent),
        WITH_BOTH(compressible_pages_are_compressed),
        WITH_BOTH(a_page_that_became_zero_is_zeroed),
        WITH_BOTH(a_changed_byte_is_noticed),
        WITH_BOTH(pages_that_would_land_elsewhere_are_noticed),
        WITH_BOTH(runs_outside_the_memory_are_refused_before_a_byte_is_written),
        WITH_BOTH(runs_that_do_not_add_up_to_the_payload_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
