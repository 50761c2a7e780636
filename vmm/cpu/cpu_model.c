/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpu_model.c - see cpu_model.h.
 */
#include "vmm/cpu/cpu_model.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/file_io.h"
#include "base/limits.h"

#define FILE_PREFIX "file="

enum base { BASE_HOST, BASE_V2, BASE_V3, BASE_COUNT };

static const char *const base_names[BASE_COUNT] = {"host", "x86-64-v2", "x86-64-v3"};

static void set_base(struct cpu_model *model, enum base base)
{
    ASSERT(cpuid_feature_row_count <= CPU_MODEL_ROWS_MAX);
    *model = (struct cpu_model){0};
    for (size_t i = 0; i < cpuid_feature_row_count; i++) {
        const struct cpuid_feature_row *row = &cpuid_feature_rows[i];
        uint32_t required = row->v2 | (base == BASE_V3 ? row->v3 : 0);

        model->required[i] = base == BASE_HOST ? 0 : required;
        model->shown[i] = row->offered & (base == BASE_HOST ? ~0u : required | row->optional);
    }
}

static struct err *parse_base(const char *name, struct cpu_model *out_model)
{
    for (int base = 0; base < BASE_COUNT; base++) {
        if (strcmp(name, base_names[base]) == 0) {
            set_base(out_model, (enum base)base);
            return NULL;
        }
    }
    return err_new(ERR_INVALID,
                   "CPU model '%.64s' is not known; use host, x86-64-v2, x86-64-v3 or file=PATH",
                   name);
}

/* The bit of that name in a row; 0: there is none. */
static uint32_t feature_bit(const struct cpuid_feature_row *row, const char *name)
{
    char known[CPUID_FEATURE_NAME_BYTES];

    for (unsigned bit = 0; bit < 32; bit++) {
        cpuid_feature_name(row, bit, known);
        if (strcmp(known, name) == 0)
            return (uint32_t)1 << bit;
    }
    return 0;
}

/* A feature may stand in several registers: it is taken from all, and required where it comes
 * first, because some vendors repeat features elsewhere. */
static struct err *apply_feature(struct cpu_model *model, char sign, const char *name)
{
    bool is_known = false;

    for (size_t i = 0; i < cpuid_feature_row_count; i++) {
        const struct cpuid_feature_row *row = &cpuid_feature_rows[i];
        uint32_t bit = strchr(name, ' ') != NULL ? 0 : feature_bit(row, name);

        if (bit == 0)
            continue;
        if (sign == '-') {
            model->shown[i] &= ~bit;
            model->required[i] &= ~bit;
        } else if ((row->offered & bit) == 0 && !is_known) {
            return err_new(ERR_INCOMPATIBLE, "feature '%s' is never offered to guests", name);
        } else {
            model->shown[i] |= row->offered & bit;
            model->required[i] |= is_known ? 0 : bit;
        }
        is_known = true;
    }
    return is_known ? NULL : err_new(ERR_INVALID, "feature '%.32s' is not known", name);
}

static struct err *apply_line(struct cpu_model *model, const char *line, bool *inout_has_base)
{
    if (*line == '\0' || *line == '#')
        return NULL;
    if (strncmp(line, "base ", 5) == 0) {
        if (*inout_has_base)
            return err_new(ERR_INVALID, "a second base");
        *inout_has_base = true;
        return parse_base(line + 5, model);
    }
    if (!*inout_has_base)
        return err_new(ERR_INVALID, "a model begins with 'base host', 'base x86-64-v2' or "
                                    "'base x86-64-v3'");
    if (*line != '+' && *line != '-')
        return err_new(ERR_INVALID, "'%.32s' is neither +FEATURE nor -FEATURE", line);
    return apply_feature(model, *line, line + 1);
}

struct err *cpu_model_parse(const char *text, size_t len, struct cpu_model *out_model)
{
    CLEANUP(cleanup_free) char *copy = strndup(text, len);
    struct cpu_model model = {0};
    bool has_base = false;
    unsigned number = 0;

    if (copy == NULL)
        return err_new(ERR_NO_MEMORY, "CPU model");
    char *rest = copy;
    for (char *line = strsep(&rest, "\n"); line != NULL; line = strsep(&rest, "\n"))
        TRY(err_wrap(apply_line(&model, line, &has_base), "line %u", ++number));
    if (!has_base)
        return err_new(ERR_INVALID, "it names no base");
    *out_model = model;
    return NULL;
}

struct err *cpu_model_load(const char *name, struct cpu_model *out_model)
{
    CLEANUP(cleanup_free) void *data = NULL;
    size_t len = 0;

    if (strncmp(name, FILE_PREFIX, strlen(FILE_PREFIX)) != 0)
        return parse_base(*name == '\0' ? base_names[BASE_HOST] : name, out_model);
    const char *path = name + strlen(FILE_PREFIX);
    TRY(file_read_all(path, CPU_MODEL_BYTES_MAX, &data, &len));
    return err_wrap(cpu_model_parse(data, len, out_model), "CPU model '%s'", path);
}
