/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dsdt.h - dsdt.asl, as iasl compiled it at build time.
 */
#ifndef VMM_BOOT_DSDT_H
#define VMM_BOOT_DSDT_H

#include <stddef.h>

extern const unsigned char dsdt_aml[];
extern const size_t dsdt_aml_bytes;

#endif
