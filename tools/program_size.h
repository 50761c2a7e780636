/* SPDX-License-Identifier: Apache-2.0 */
/*
 * program_size.h - sizes as people type them. Thread: any.
 */
#ifndef TOOLS_PROGRAM_SIZE_H
#define TOOLS_PROGRAM_SIZE_H

#include <stdint.h>

#include "base/err.h"

/* "65536", "64k", "10G", "1T": whole numbers in units of 1024, with or without "iB" behind the
 * letter. ERR_INVALID names `what`. */
ERR_RESULT program_size_parse(const char *what, const char *text, uint64_t *out_bytes);

#endif
