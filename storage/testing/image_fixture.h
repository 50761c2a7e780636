/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_fixture.h - small qcow2 images in memory for tests: made and written by us, and then broken
 * on purpose.
 */
#ifndef STORAGE_TESTING_IMAGE_FIXTURE_H
#define STORAGE_TESTING_IMAGE_FIXTURE_H

#include <stddef.h>
#include <stdint.h>

struct qcow_create_options;

struct image_bytes {
    uint8_t *data; /* owned */
    size_t len;
};

/* An image with data, zeros and a discarded range in it. Fails the test if that does not work. */
struct image_bytes image_fixture_make(const struct qcow_create_options *options);
struct image_bytes image_fixture_copy(const struct image_bytes *image);
void image_fixture_finish(struct image_bytes *image);

uint64_t image_fixture_get(const struct image_bytes *image, uint64_t offset); /* big endian */
void image_fixture_put(struct image_bytes *image, uint64_t offset, uint64_t value);

/* Where the active L1 table, the first L2 table that it leads to and the first refcount block are.
 */
uint64_t image_fixture_l1(const struct image_bytes *image);
uint64_t image_fixture_l2(const struct image_bytes *image);
uint64_t image_fixture_block(const struct image_bytes *image);

#endif
