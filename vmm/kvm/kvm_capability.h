/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvm_capability.h - what Ferry needs of a KVM, and what to do where it is missing.
 */
#ifndef VMM_KVM_KVM_CAPABILITY_H
#define VMM_KVM_KVM_CAPABILITY_H

#include "base/err.h"

/* Answers like KVM_CHECK_EXTENSION: 0 when the capability is missing. */
typedef int (*kvm_capability_query)(void *context, int capability);

/* ERR_INCOMPATIBLE names the first required capability that is missing and the remedy. */
ERR_RESULT kvm_capabilities_check(kvm_capability_query query, void *context);

#endif
