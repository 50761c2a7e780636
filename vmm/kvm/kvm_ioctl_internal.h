/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvm_ioctl_internal.h - the one call to the kernel that everything in this folder makes.
 */
#ifndef VMM_KVM_KVM_IOCTL_INTERNAL_H
#define VMM_KVM_KVM_IOCTL_INTERNAL_H

#include <errno.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>

#include "base/err.h"

/* `what` finishes the sentence "KVM: ...". */
static inline ERR_RESULT kvm_ioctl(int fd, unsigned long request, void *argument, const char *what)
{
    if (ioctl(fd, request, argument) < 0)
        return err_errno(errno, "KVM: %s", what);
    return NULL;
}

#endif
