/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpuid_features.h - which CPUID registers are sets of features, what the bits are called, and
 * which of them a CPU model has. Thread: any.
 */
#ifndef VMM_CPU_CPUID_FEATURES_H
#define VMM_CPU_CPUID_FEATURES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum cpuid_register { CPUID_EAX, CPUID_EBX, CPUID_ECX, CPUID_EDX };

struct cpuid_feature_row {
    uint32_t function;
    uint32_t index;
    enum cpuid_register reg;
    uint32_t offered;  /* bits that guests may see if the host has them */
    uint32_t v2;       /* bits of x86-64-v2, required of the host */
    uint32_t v3;       /* bits that x86-64-v3 adds */
    uint32_t optional; /* shown to guests of named models where the host has them */
    const char *names; /* of bits 0..31, separated by spaces; "-": none */
};

extern const struct cpuid_feature_row cpuid_feature_rows[];
extern const size_t cpuid_feature_row_count;

#define CPUID_FEATURE_NAME_BYTES 32u

/* "avx512f", or "bit 16" when it has no name; into a buffer of so many bytes. */
void cpuid_feature_name(const struct cpuid_feature_row *row, unsigned bit, char *out_name);
const char *cpuid_register_name(enum cpuid_register reg);

#endif
