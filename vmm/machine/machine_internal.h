/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine_internal.h - the parts of a machine, for the files of this folder.
 */
#ifndef VMM_MACHINE_MACHINE_INTERNAL_H
#define VMM_MACHINE_MACHINE_INTERNAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/limits.h"
#include "base/lock.h"
#include "proto/machine.pb-c.h"
#include "storage/block.h"
#include "vmm/devices/device.h"
#include "vmm/kvm/kvm_dirty_log.h"
#include "vmm/machine/disk_tracking.h"
#include "vmm/machine/machine.h"

struct console;
struct dirty_tracker;
struct guest_memory;
struct kvm_cpuid2;
struct kvm_interrupts;
struct kvm_vm;
struct loop_wake;
struct loop_worker;
struct pci_bus;
struct vcpu_set;

#define MACHINE_DEVICES_MAX (MACHINE_VCPUS_MAX + MACHINE_DISKS_MAX + MACHINE_NETS_MAX + 16u)

struct paused_machine {
    struct machine *machine;
};

struct machine_disk {
    Ferry__DiskConfig *config; /* of the machine's description */
    struct block *block;       /* owned; NULL until it is opened */
    struct disk_tracking tracking;
    struct device *device;
    char *overlay; /* owned: path of the overlay prepared for a freeze; NULL: none */
};

/* What the guest asked for, noted by vCPU threads and looked at by the loop. */
enum machine_wish { WISH_RESET = 1, WISH_POWER_OFF = 2, WISH_FAILED = 4 };

struct machine {
    struct event_loop *loop;
    void (*on_event)(void *context, enum machine_event event);
    void *context;
    Ferry__MachineDescription *description; /* owned */
    struct kvm_cpuid2 *cpuid;               /* owned */

    struct guest_memory *memory;
    struct kvm_vm *kvm;
    struct kvm_interrupts *interrupts;
    struct io_bus *ports;
    struct io_bus *mmio;
    struct lock device_lock;
    struct vcpu_set *vcpus;
    struct kvm_dirty_log_reader log;
    struct dirty_tracker *tracker;

    struct device_host host;
    struct device *devices[MACHINE_DEVICES_MAX]; /* owned, but for the PCI bus's own */
    size_t device_count;
    struct device *power;  /* of devices */
    struct device *serial; /* likewise */
    struct pci_bus *pci;   /* owned through its device */
    struct console *console;
    struct machine_disk disks[MACHINE_DISKS_MAX];
    size_t disk_count;
    int tap_fds[MACHINE_NETS_MAX]; /* until a device takes them; -1 */

    struct paused_machine paused;
    bool is_running;
    bool is_off;
    bool are_devices_started;
    char *failure; /* owned; NULL: none */

    struct loop_worker *worker; /* owned; NULL once it was stopped */
    struct loop_wake *wake;
    /* Bits of enum machine_wish: set by vCPU threads (release), taken by the loop (acquire). The
     * first thread to fail writes the reason, before it sets WISH_FAILED. */
    atomic_uint wishes;
    atomic_flag is_reason_taken;
    char failure_reason[320];
};

/* Notes that the machine can not run on; the loop stops it. Thread: any. */
void machine_fail(struct machine *machine, const char *reason);

/* machine_devices.c: the one list of devices. */
ERR_RESULT machine_devices_create(struct machine *machine);
void machine_devices_destroy(struct machine *machine);
ERR_RESULT machine_devices_start(struct machine *machine);
void machine_devices_stop(struct machine *machine);
void machine_devices_reset(struct machine *machine);

/* machine_disks.c */
ERR_RESULT machine_disks_open(struct machine *machine); /* those that are not open */
void machine_disks_close(struct machine *machine);

/* machine_description.c */
ERR_RESULT machine_config_check(const Ferry__MachineConfig *config);
ERR_RESULT machine_description_copy(const Ferry__MachineDescription *from,
                                    Ferry__MachineDescription **out_copy);

#endif
