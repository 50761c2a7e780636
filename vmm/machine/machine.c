/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine.c - see machine.h.
 *
 * Pause: vCPUs stop, devices drain, disks flush. Resume: disks are there, devices start and look
 * at every queue, vCPUs run. What the guest asks for while it runs (reset, power-off) and what
 * makes it impossible to go on is noted by vCPU threads and handled by the loop; a reset that was
 * asked for before a pause is done in the pause, so that a saved machine never forgets it.
 *
 * Tested by: tests/system.
 */
#include "vmm/machine/machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/limits.h"
#include "vmm/boot/acpi_tables.h"
#include "vmm/boot/guest_boot.h"
#include "vmm/bus/io_bus.h"
#include "vmm/cpu/cpuid.h"
#include "vmm/cpu/vcpu_set.h"
#include "vmm/devices/legacy/acpi_pm.h"
#include "vmm/kvm/kvm_interrupts.h"
#include "vmm/kvm/kvm_vcpu.h"
#include "vmm/kvm/kvm_vm.h"
#include "vmm/machine/loop_wake.h"
#include "vmm/machine/loop_worker.h"
#include "vmm/machine/machine_console.h"
#include "vmm/machine/machine_internal.h"
#include "vmm/memory/dirty_tracker.h"
#include "vmm/memory/guest_memory.h"

static void wish(struct machine *machine, unsigned wishes)
{
    atomic_fetch_or_explicit(&machine->wishes, wishes, memory_order_release);
    loop_wake(machine->wake);
}

static void request_reset(void *machine)
{
    wish(machine, WISH_RESET);
}

static void request_power_off(void *machine)
{
    wish(machine, WISH_POWER_OFF);
}

static void on_vcpu_stop(void *context, enum vcpu_verdict verdict, const char *reason)
{
    struct machine *machine = context;

    if (verdict == VCPU_RESET)
        wish(machine, WISH_RESET);
    if (verdict == VCPU_POWER_OFF)
        wish(machine, WISH_POWER_OFF);
    if (verdict == VCPU_FAILED)
        machine_fail(machine, reason);
}

void machine_fail(struct machine *machine, const char *reason)
{
    if (!atomic_flag_test_and_set(&machine->is_reason_taken)) {
        (void)snprintf(machine->failure_reason, sizeof(machine->failure_reason), "%s", reason);
        wish(machine, WISH_FAILED);
    }
}

/* What was wished for, with the vCPUs and devices standing still. */
static struct err *fulfil(struct machine *machine, enum machine_event *out_event, bool *out_any)
{
    unsigned wishes = atomic_exchange_explicit(&machine->wishes, 0, memory_order_acquire);

    *out_any = wishes != 0;
    if ((wishes & WISH_FAILED) != 0) {
        machine->failure = strdup(machine->failure_reason);
        *out_event = MACHINE_EVENT_FAILED;
        return NULL;
    }
    if ((wishes & WISH_POWER_OFF) != 0) {
        machine->is_off = true;
        *out_event = MACHINE_EVENT_POWER_OFF;
        return NULL;
    }
    *out_event = MACHINE_EVENT_RESET;
    return wishes == 0 ? NULL : machine_reset(&machine->paused);
}

static void stand(struct machine *machine)
{
    vcpu_set_pause(machine->vcpus);
    machine_devices_stop(machine);
    machine->is_running = false;
}

static void fail_with(struct machine *machine, struct err *err)
{
    free(machine->failure);
    machine->failure = strdup(err_message(err));
    err_free(err);
}

static void on_wish(void *context)
{
    struct machine *machine = context;
    enum machine_event event = MACHINE_EVENT_RESET;
    bool is_any = false;

    /* While it is paused nothing new comes, and the pause has looked at what was there; but lazy
     * memory may find damage. */
    if (!machine->is_running && (atomic_load(&machine->wishes) & WISH_FAILED) == 0)
        return;
    bool was_running = machine->is_running;
    if (was_running)
        stand(machine);
    struct err *err = fulfil(machine, &event, &is_any);
    if (err == NULL && machine->failure == NULL && !machine->is_off && was_running) {
        struct paused_machine *paused = &machine->paused;
        err = machine_resume(&paused);
    }
    if (err != NULL) {
        fail_with(machine, err_wrap(err, "the guest was reset"));
        event = MACHINE_EVENT_FAILED;
        is_any = true;
    }
    if (is_any)
        machine->on_event(machine->context, event);
}

static struct err *create_memory(struct machine *machine)
{
    const Ferry__MachineConfig *config = machine->description->config;

    TRY(guest_memory_create(config->memory_mib * MIB, config->memory_below_4g_mib * MIB,
                            &machine->memory));
    for (size_t i = 0; i < guest_memory_region_count(machine->memory); i++) {
        const struct guest_region region = guest_memory_region(machine->memory, i);
        uint8_t *host = guest_memory_mapping(machine->memory);
        TRY(kvm_vm_add_slot(machine->kvm, (uint32_t)i, region.start.value,
                            host + region.file_offset, region.bytes));
    }
    kvm_dirty_log_init(&machine->log, machine->kvm,
                       (uint32_t)guest_memory_region_count(machine->memory));
    return dirty_tracker_create(machine->memory, &machine->log.base, &machine->tracker);
}

/* A machine that boots gets its CPUID from the model; one that arrives brings it along. */
static struct err *choose_cpuid(struct machine *machine)
{
    Ferry__MachineDescription *description = machine->description;
    const struct kvm_cpuid2 *host = kvm_vm_supported_cpuid(machine->kvm);

    if (description->n_cpuid == 0)
        return cpuid_build(host, description->config->cpu_model, description->config->vcpus,
                           &machine->cpuid);
    TRY(cpuid_from_description(description, &machine->cpuid));
    return cpuid_check(host, machine->cpuid);
}

static struct err *create_vcpus(struct machine *machine)
{
    struct vcpu_set_config config = {
        .count = machine->description->config->vcpus,
        .buses = {machine->ports, machine->mmio, &machine->device_lock},
        .on_stop = on_vcpu_stop,
        .context = machine,
    };
    TRY(vcpu_set_create(machine->kvm, &config, &machine->vcpus));
    for (unsigned i = 0; i < config.count; i++) {
        CLEANUP(cleanup_free) struct kvm_cpuid2 *table = NULL;
        TRY(cpuid_for_vcpu(machine->cpuid, i, &table));
        TRY(kvm_vcpu_set_cpuid(vcpu_set_kvm(machine->vcpus, i), table));
    }
    return NULL;
}

static struct err *create_parts(struct machine *machine)
{
    TRY(loop_wake_create(machine->loop, on_wish, machine, &machine->wake));
    TRY(loop_worker_create(machine->loop, &machine->worker));
    TRY(kvm_vm_create(&machine->kvm));
    TRY(choose_cpuid(machine));
    TRY(create_memory(machine));
    TRY(kvm_vm_create_irqchip(machine->kvm));
    TRY(io_bus_create(&machine->ports));
    TRY(io_bus_create(&machine->mmio));
    TRY(create_vcpus(machine));
    TRY(kvm_interrupts_create(machine->kvm, &machine->interrupts));

    machine->host = (struct device_host){
        .loop = machine->loop,
        .memory = machine->memory,
        .interrupts = kvm_interrupts_base(machine->interrupts),
        .ports = machine->ports,
        .mmio = machine->mmio,
        .lock = &machine->device_lock,
        .request_reset = request_reset,
        .request_power_off = request_power_off,
        .machine = machine,
    };
    return machine_devices_create(machine);
}

static void take_taps(struct machine *machine, struct machine_taps taps)
{
    for (size_t i = 0; i < MACHINE_NETS_MAX; i++)
        machine->tap_fds[i] = i < taps.count ? taps.fds[i] : -1;
    for (size_t i = MACHINE_NETS_MAX; i < taps.count; i++)
        close(taps.fds[i]);
}

struct err *machine_create(struct event_loop *loop, const Ferry__MachineDescription *description,
                           struct machine_taps taps,
                           void (*on_event)(void *context, enum machine_event event), void *context,
                           struct machine **out_machine)
{
    struct machine *machine = calloc(1, sizeof(*machine));
    if (machine == NULL)
        return err_new(ERR_NO_MEMORY, "machine");
    machine->loop = loop;
    machine->on_event = on_event;
    machine->context = context;
    machine->paused.machine = machine;
    lock_init(&machine->device_lock, LOCK_DEVICES);
    take_taps(machine, taps);

    struct err *err = machine_description_copy(description, &machine->description);
    if (err == NULL)
        err = machine_config_check(machine->description->config);
    if (err == NULL)
        err = create_parts(machine);
    if (err != NULL) {
        machine_destroy(machine);
        return err;
    }

    *out_machine = machine;
    return NULL;
}

void machine_destroy(struct machine *machine)
{
    if (machine == NULL)
        return;
    machine_stop_worker(machine);
    if (machine->vcpus != NULL)
        vcpu_set_pause(machine->vcpus);
    machine_devices_stop(machine);
    machine_disks_close(machine);
    machine_devices_destroy(machine);
    console_destroy(machine->console);
    vcpu_set_destroy(machine->vcpus);
    kvm_interrupts_destroy(machine->interrupts);
    io_bus_destroy(machine->ports);
    io_bus_destroy(machine->mmio);
    dirty_tracker_destroy(machine->tracker);
    kvm_vm_destroy(machine->kvm);
    guest_memory_destroy(machine->memory);
    loop_wake_destroy(machine->wake);
    for (size_t i = 0; i < MACHINE_NETS_MAX; i++)
        cleanup_fd(&machine->tap_fds[i]);
    lock_finish(&machine->device_lock);
    if (machine->description != NULL)
        ferry__machine_description__free_unpacked(machine->description, NULL);
    free(machine->cpuid);
    free(machine->failure);
    free(machine);
}

/* Memory, tables and the first vCPU as at power-on; everything else is as after a reset. */
static struct err *load_kernel(struct machine *machine)
{
    const Ferry__MachineConfig *config = machine->description->config;
    struct guest_boot_config boot = {
        .kernel = config->kernel,
        .initrd = config->initrd,
        .command_line = config->command_line,
    };
    struct boot_entry entry;

    TRY(acpi_tables_load(machine->memory, config->vcpus, &boot.rsdp_address));
    TRY(guest_boot_load(machine->memory, &boot, &entry));
    return boot_entry_apply(&entry, vcpu_set_kvm(machine->vcpus, 0));
}

struct err *machine_boot(struct machine *machine, struct paused_machine **out_paused)
{
    if (*machine->description->config->kernel == '\0')
        return err_new(ERR_INVALID, "the machine has no kernel to boot; name one with --kernel");
    TRY(machine_disks_open(machine));
    TRY(load_kernel(machine));
    vcpu_set_forget_first_run(machine->vcpus);
    *out_paused = &machine->paused;
    return NULL;
}

struct err *machine_pause(struct machine *machine, struct paused_machine **out_paused)
{
    enum machine_event event = MACHINE_EVENT_RESET;
    bool is_any = false;

    ASSERT(machine->is_running);
    stand(machine);
    struct err *err = fulfil(machine, &event, &is_any);
    if (err != NULL) {
        fail_with(machine, err_wrap(err, "the guest was reset"));
        event = MACHINE_EVENT_FAILED;
    }
    if (is_any)
        machine->on_event(machine->context, event);
    if (machine->failure != NULL)
        return err_new(ERR_STATE, "the machine has failed: %s", machine->failure);
    if (machine->is_off)
        return err_new(ERR_STATE, "the guest has switched itself off");

    err = machine_flush_disks(machine);
    if (err != NULL) {
        struct paused_machine *paused = &machine->paused;
        struct err *resume_err = machine_resume(&paused);
        if (resume_err != NULL)
            fail_with(machine, resume_err);
        return err_wrap(err, "pause the machine");
    }
    *out_paused = &machine->paused;
    return NULL;
}

struct err *machine_resume(struct paused_machine **inout_paused)
{
    struct machine *machine = (*inout_paused)->machine;

    ASSERT(!machine->is_running);
    if (machine->failure != NULL)
        return err_new(ERR_STATE, "the machine has failed: %s", machine->failure);
    TRY(machine_disks_open(machine));
    TRY(machine_devices_start(machine));
    struct err *err = vcpu_set_resume(machine->vcpus);
    if (err != NULL) {
        machine_devices_stop(machine);
        return err;
    }
    machine->is_running = true;
    *inout_paused = NULL;
    return NULL;
}

struct err *machine_reset(struct paused_machine *paused)
{
    struct machine *machine = paused->machine;

    if (*machine->description->config->kernel == '\0')
        return err_new(ERR_STATE, "its kernel is not known here, so it can not boot again");
    machine_devices_reset(machine);
    return load_kernel(machine);
}

struct err *machine_do_later(struct machine *machine, struct loop_job *job)
{
    if (machine->worker == NULL)
        return err_new(ERR_STATE, "the machine ends");
    loop_worker_give(machine->worker, job);
    return NULL;
}

void machine_stop_worker(struct machine *machine)
{
    loop_worker_destroy(TAKE_PTR(machine->worker));
}

struct guest_memory *machine_memory(struct machine *machine)
{
    return machine->memory;
}

struct dirty_tracker *machine_tracker(struct machine *machine)
{
    return machine->tracker;
}

struct err *machine_open_console(struct machine *machine, int *out_fd)
{
    return console_open_client(machine->console, out_fd);
}

void machine_give_up(struct machine *machine, const char *reason)
{
    machine_fail(machine, reason);
    on_wish(machine);
}

uint64_t machine_first_run_ns(const struct machine *machine)
{
    return vcpu_set_first_run_ns(machine->vcpus);
}

uint64_t machine_last_exit_ns(const struct machine *machine)
{
    return vcpu_set_last_exit_ns(machine->vcpus);
}

uint64_t machine_entered_ns(const struct machine *machine)
{
    return vcpu_set_entered_ns(machine->vcpus);
}

bool machine_power_button(struct machine *machine)
{
    lock_acquire(&machine->device_lock);
    bool is_heard = acpi_pm_power_button(machine->power);
    lock_release(&machine->device_lock);
    return is_heard;
}

const char *machine_failure(const struct machine *machine)
{
    return machine->failure;
}
