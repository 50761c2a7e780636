/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vcpu_exit.c - see vcpu_exit.h.
 */
#include "vmm/cpu/vcpu_exit.h"

#include <linux/kvm.h>
#include <stdio.h>

#include "base/checked_math.h"
#include "base/lock.h"
#include "vmm/bus/io_bus.h"

static void port_access(const struct vcpu_buses *buses, struct kvm_run *run)
{
    uint8_t *data = (uint8_t *)run + run->io.data_offset;

    lock_acquire(buses->lock);
    for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
        if (run->io.direction == KVM_EXIT_IO_OUT)
            io_bus_write(buses->ports, run->io.port, data, run->io.size);
        else
            io_bus_read(buses->ports, run->io.port, data, run->io.size);
    }
    lock_release(buses->lock);
}

static void mmio_access(const struct vcpu_buses *buses, struct kvm_run *run)
{
    lock_acquire(buses->lock);
    if (run->mmio.is_write)
        io_bus_write(buses->mmio, run->mmio.phys_addr, run->mmio.data, run->mmio.len);
    else
        io_bus_read(buses->mmio, run->mmio.phys_addr, run->mmio.data, run->mmio.len);
    lock_release(buses->lock);
}

static enum vcpu_verdict internal_error(const struct kvm_run *run, char *out_reason)
{
    unsigned long long data[4] = {0};

    for (uint32_t i = 0; i < MIN(run->internal.ndata, (uint32_t)ARRAY_COUNT(data)); i++)
        data[i] = run->internal.data[i];
    (void)snprintf(out_reason, VCPU_REASON_BYTES,
                   "KVM could not run an instruction of the guest (internal error %u, data %llx "
                   "%llx %llx %llx)%s",
                   run->internal.suberror, data[0], data[1], data[2], data[3],
                   run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION
                       ? ": this KVM does not emulate it"
                       : "");
    return VCPU_FAILED;
}

static enum vcpu_verdict system_event(const struct kvm_run *run, char *out_reason)
{
    switch (run->system_event.type) {
    case KVM_SYSTEM_EVENT_SHUTDOWN: return VCPU_POWER_OFF;
    case KVM_SYSTEM_EVENT_RESET:
    case KVM_SYSTEM_EVENT_CRASH: return VCPU_RESET;
    default:
        (void)snprintf(out_reason, VCPU_REASON_BYTES, "KVM reported system event %u",
                       run->system_event.type);
        return VCPU_FAILED;
    }
}

enum vcpu_verdict vcpu_exit_handle(const struct vcpu_buses *buses, struct kvm_run *run,
                                   char out_reason[VCPU_REASON_BYTES])
{
    switch (run->exit_reason) {
    case KVM_EXIT_IO: port_access(buses, run); return VCPU_RUN_ON;
    case KVM_EXIT_MMIO: mmio_access(buses, run); return VCPU_RUN_ON;
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
    case KVM_EXIT_HLT: /* halts are the kernel's: it has the local APIC */ return VCPU_RUN_ON;
    case KVM_EXIT_SHUTDOWN: /* triple fault: real hardware resets */ return VCPU_RESET;
    case KVM_EXIT_SYSTEM_EVENT: return system_event(run, out_reason);
    case KVM_EXIT_INTERNAL_ERROR: return internal_error(run, out_reason);
    case KVM_EXIT_FAIL_ENTRY:
        (void)snprintf(out_reason, VCPU_REASON_BYTES,
                       "the CPU refused to enter the guest (hardware reason 0x%llx)",
                       (unsigned long long)run->fail_entry.hardware_entry_failure_reason);
        return VCPU_FAILED;
    default:
        (void)snprintf(out_reason, VCPU_REASON_BYTES, "KVM stopped a vCPU for unknown reason %u",
                       run->exit_reason);
        return VCPU_FAILED;
    }
}
