/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvm_speed.h - does this host's KVM run guest kernels, or interpret them?
 *
 * Some paravirtual KVMs run a guest's ring 3 on the CPU and emulate its ring 0, a thousand times
 * slower; a stock kernel boots there in hours. Thread: any.
 */
#ifndef VMM_KVM_KVM_SPEED_H
#define VMM_KVM_KVM_SPEED_H

#include <stdbool.h>

#include "base/err.h"

/* Times a small ring-0 loop in a machine of its own: well below a millisecond where it runs on the
 * CPU, less than 15 ms in all where it does not. */
ERR_RESULT kvm_speed_measure(bool *out_is_interpreted);

#endif
