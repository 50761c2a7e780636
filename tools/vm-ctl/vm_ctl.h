/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vm_ctl.h - the commands of vm-ctl.
 *
 * Thread: loop only.
 */
#ifndef TOOLS_VM_CTL_VM_CTL_H
#define TOOLS_VM_CTL_VM_CTL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct vm_ctl_settings {
    bool json;
    bool force;
    uint64_t wait_s;
};

extern struct vm_ctl_settings vm_ctl_settings; /* parsed once by main */

/* Each takes the operands after the command: none, or the machine's name. */
ERR_RESULT vm_ctl_list(const char *const *operands, size_t operand_count);
ERR_RESULT vm_ctl_status(const char *const *operands, size_t operand_count);
ERR_RESULT vm_ctl_pause(const char *const *operands, size_t operand_count);
ERR_RESULT vm_ctl_resume(const char *const *operands, size_t operand_count);
ERR_RESULT vm_ctl_power_off(const char *const *operands, size_t operand_count);
ERR_RESULT vm_ctl_resize_disk(const char *const *operands, size_t operand_count);
ERR_RESULT vm_ctl_limit_disk(const char *const *operands, size_t operand_count);
ERR_RESULT vm_ctl_reset(const char *const *operands, size_t operand_count);
ERR_RESULT vm_ctl_console(const char *const *operands, size_t operand_count);
ERR_RESULT vm_ctl_quit(const char *const *operands, size_t operand_count);

#endif
