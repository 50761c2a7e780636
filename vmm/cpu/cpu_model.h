/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpu_model.h - which CPU features a guest sees: by the model's name, or from a file.
 *
 * A file of a model has a line for its base and one for each feature that differs from it:
 *
 *     # hosts of row 3
 *     base x86-64-v2
 *     +aes
 *     -pcid
 *
 * Features are named as messages name them. A feature that is added is required of the host.
 * Thread: any.
 */
#ifndef VMM_CPU_CPU_MODEL_H
#define VMM_CPU_CPU_MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "vmm/cpu/cpuid_features.h"

#define CPU_MODEL_ROWS_MAX 32u

/* By row of the table of features. */
struct cpu_model {
    uint32_t shown[CPU_MODEL_ROWS_MAX];    /* to guests, where the host has them */
    uint32_t required[CPU_MODEL_ROWS_MAX]; /* of the host */
};

/* "host", "x86-64-v2", "x86-64-v3", "file=PATH", or "", which is host. */
ERR_RESULT cpu_model_load(const char *name, struct cpu_model *out_model);

/* What a file says; `text` need not end with a zero. */
ERR_RESULT cpu_model_parse(const char *text, size_t len, struct cpu_model *out_model);

#endif
