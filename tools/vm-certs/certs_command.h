/* SPDX-License-Identifier: Apache-2.0 */
/*
 * certs_command.h - what vm-certs does. Thread: loop only.
 */
#ifndef TOOLS_VM_CERTS_CERTS_COMMAND_H
#define TOOLS_VM_CERTS_CERTS_COMMAND_H

#include <stddef.h>

#include "base/err.h"
#include "base/option_table.h"

struct certs_options {
    const char *folder;
    const char *out;
    struct option_list names;
    uint64_t days;
};

/* Filled once, by main. */
extern struct certs_options certs_options;

ERR_RESULT certs_init(const char *const *operands, size_t operand_count);
ERR_RESULT certs_issue(const char *const *operands, size_t operand_count);

#endif
