/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_mutator.h - breaks qcow2 images where it hurts: pointers, counts, lengths and flags.
 *
 * It finds tables by following the image's own pointers, as far as these still lead into the file.
 * Thread: any.
 */
#ifndef STORAGE_TESTING_IMAGE_MUTATOR_H
#define STORAGE_TESTING_IMAGE_MUTATOR_H

#include <stddef.h>
#include <stdint.h>

#include "storage/testing/chance.h"

/* Changes one thing; now and then cuts the file short. */
void image_mutate(struct chance *chance, uint8_t *bytes, size_t *inout_len);

#endif
