/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine_devices.c - which devices a machine has, in the order in which their state is applied:
 * the clock before the vCPUs, because a deadline of a vCPU's timer is a TSC value; the vCPUs with
 * their local APICs before the interrupt chips, which deliver to them as they are set.
 *
 * They start in that order and stop in the other.
 * Tested by: tests/system.
 */
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "vmm/bus/pci_bus.h"
#include "vmm/bus/platform_map.h"
#include "vmm/cpu/clock_state.h"
#include "vmm/cpu/irqchip_state.h"
#include "vmm/cpu/pit_state.h"
#include "vmm/cpu/vcpu_set.h"
#include "vmm/cpu/vcpu_state.h"
#include "vmm/devices/legacy/acpi_pm.h"
#include "vmm/devices/legacy/i8042.h"
#include "vmm/devices/legacy/rtc_cmos.h"
#include "vmm/devices/legacy/serial_16550.h"
#include "vmm/devices/virtio/virtio_blk.h"
#include "vmm/devices/virtio/virtio_net.h"
#include "vmm/devices/virtio/virtio_rng.h"
#include "vmm/machine/machine_console.h"
#include "vmm/machine/machine_internal.h"

static struct err *create_clock(struct machine *machine, struct device **out_device)
{
    return clock_device_create(&machine->host, machine->kvm, machine->vcpus, out_device);
}

static struct err *create_irqchip(struct machine *machine, struct device **out_device)
{
    return irqchip_device_create(&machine->host, machine->kvm, out_device);
}

static struct err *create_pit(struct machine *machine, struct device **out_device)
{
    return pit_device_create(&machine->host, machine->kvm, out_device);
}

static struct err *create_i8042(struct machine *machine, struct device **out_device)
{
    return i8042_create(&machine->host, out_device);
}

static struct err *create_rtc(struct machine *machine, struct device **out_device)
{
    return rtc_cmos_create(&machine->host, out_device);
}

static struct err *create_power(struct machine *machine, struct device **out_device)
{
    TRY(acpi_pm_create(&machine->host, out_device));
    machine->power = *out_device;
    return NULL;
}

static struct err *create_serial(struct machine *machine, struct device **out_device)
{
    struct serial_line line = console_line(machine->console);

    TRY(serial_16550_create(&machine->host, 0, PORT_COM1, IRQ_COM1, &line, out_device));
    machine->serial = *out_device;
    console_connect(machine->console, machine->serial);
    return NULL;
}

static struct err *create_pci(struct machine *machine, struct device **out_device)
{
    TRY(pci_bus_create(&machine->host, &machine->pci));
    *out_device = pci_bus_device(machine->pci);
    return NULL;
}

/* The devices that every machine has once. */
static struct err *(*const platform[])(struct machine *machine, struct device **out_device) = {
    create_irqchip, create_pit, create_i8042, create_rtc, create_power, create_serial, create_pci,
};

static struct err *add(struct machine *machine,
                       struct err *(*create)(struct machine *machine, struct device **out_device))
{
    TRY(create(machine, &machine->devices[machine->device_count]));
    machine->device_count++;
    return NULL;
}

static struct err *add_vcpus(struct machine *machine)
{
    for (unsigned i = 0; i < vcpu_set_count(machine->vcpus); i++) {
        TRY(vcpu_device_create(&machine->host, machine->kvm, vcpu_set_kvm(machine->vcpus, i), i,
                               machine->cpuid, &machine->devices[machine->device_count]));
        machine->device_count++;
    }
    return NULL;
}

/* The words were checked with the description. */
static enum virtio_blk_on_error on_error_of(const Ferry__DiskConfig *config)
{
    if (strcmp(config->on_error, "stop") == 0)
        return VIRTIO_BLK_WAIT;
    return strcmp(config->on_error, "report") == 0 ? VIRTIO_BLK_REPORT : VIRTIO_BLK_WAIT_FOR_ROOM;
}

static enum virtio_blk_zeroes zeroes_of(const Ferry__DiskConfig *config)
{
    if (strcmp(config->detect_zeroes, "unmap") == 0)
        return VIRTIO_BLK_ZEROES_UNMAP;
    return strcmp(config->detect_zeroes, "on") == 0 ? VIRTIO_BLK_ZEROES_ON : VIRTIO_BLK_ZEROES_OFF;
}

static enum io_engine_kind engine_of(const Ferry__DiskConfig *config)
{
    if (strcmp(config->engine, "io_uring") == 0)
        return IO_ENGINE_URING;
    return strcmp(config->engine, "threads") == 0 ? IO_ENGINE_THREADS : IO_ENGINE_ANY;
}

static struct err *add_disks(struct machine *machine)
{
    const Ferry__MachineConfig *config = machine->description->config;

    for (uint32_t i = 0; i < config->n_disks; i++) {
        struct machine_disk *disk = &machine->disks[machine->disk_count];
        disk->config = config->disks[i];
        struct virtio_blk_options options = {
            .instance = i,
            .queue_count = disk->config->queues,
            .serial = disk->config->id,
            .is_read_only = disk->config->read_only != 0,
            .engine = engine_of(disk->config),
            .on_error = on_error_of(disk->config),
            .zeroes = zeroes_of(disk->config),
            .rates = {disk->config->requests_per_second, disk->config->bytes_per_second},
        };
        TRY(virtio_blk_create(&machine->host, machine->pci, &options, &disk->device));
        machine->devices[machine->device_count++] = disk->device;
        machine->disk_count++;
    }
    return NULL;
}

/* Networks given by descriptor take the descriptors in their order. */
static struct err *open_tap(struct machine *machine, const Ferry__NetConfig *net,
                            size_t *inout_next, struct net_tap *out_tap)
{
    if (!net->tap_by_fd)
        return net_tap_open(net->tap, out_tap);
    if (*inout_next == MACHINE_NETS_MAX || machine->tap_fds[*inout_next] < 0)
        return err_new(ERR_INVALID, "its tap is to come as a descriptor, and none came");
    TRY(net_tap_adopt(machine->tap_fds[*inout_next], out_tap));
    machine->tap_fds[(*inout_next)++] = -1;
    return NULL;
}

static struct err *add_net(struct machine *machine, uint32_t instance, size_t *inout_next)
{
    const Ferry__NetConfig *net = machine->description->config->nets[instance];
    struct virtio_net_options options = {.instance = instance};
    struct device **device = &machine->devices[machine->device_count];

    TRY(open_tap(machine, net, inout_next, &options.tap));
    memcpy(options.mac, net->mac.data, sizeof(options.mac));
    struct err *err = virtio_net_create(&machine->host, machine->pci, &options, device);
    if (err != NULL) {
        close(options.tap.fd);
        return err;
    }
    machine->device_count++;
    return NULL;
}

static struct err *add_nets(struct machine *machine)
{
    const Ferry__MachineConfig *config = machine->description->config;
    size_t next = 0;

    for (uint32_t i = 0; i < config->n_nets; i++)
        TRY(err_wrap(add_net(machine, i, &next), "network '%s'", config->nets[i]->id));
    return NULL;
}

static struct err *add_rng(struct machine *machine)
{
    if (!machine->description->config->rng)
        return NULL;
    TRY(virtio_rng_create(&machine->host, machine->pci, 0,
                          &machine->devices[machine->device_count]));
    machine->device_count++;
    return NULL;
}

/* A machine that arrives has its console where it had it before, if there is such a place here; it
 * never has our terminal. */
static struct err *create_console(struct machine *machine)
{
    const char *where = machine->description->config->console;
    bool is_arriving = machine->description->n_cpuid != 0;

    if (*where == '\0' || (is_arriving && strcmp(where, "stdio") == 0))
        where = "none";
    struct err *err =
        console_create(machine->loop, &machine->device_lock, where, &machine->console);
    if (err == NULL || !is_arriving)
        return err;
    log_err(LOG_WARNING, "console stays unconnected", err);
    return console_create(machine->loop, &machine->device_lock, "none", &machine->console);
}

struct err *machine_devices_create(struct machine *machine)
{
    TRY(create_console(machine));
    TRY(add(machine, create_clock));
    TRY(add_vcpus(machine));
    for (size_t i = 0; i < sizeof(platform) / sizeof(platform[0]); i++)
        TRY(add(machine, platform[i]));
    TRY(add_disks(machine));
    TRY(add_nets(machine));
    return add_rng(machine);
}

void machine_devices_destroy(struct machine *machine)
{
    if (machine->console != NULL)
        console_connect(machine->console, NULL);
    while (machine->device_count > 0) {
        struct device *device = machine->devices[--machine->device_count];
        device->ops->destroy(device);
    }
}

struct err *machine_devices_start(struct machine *machine)
{
    for (size_t i = 0; i < machine->device_count; i++) {
        struct device *device = machine->devices[i];
        struct err *err = device->ops->start(device);
        if (err != NULL) {
            while (i-- > 0)
                machine->devices[i]->ops->stop(machine->devices[i]);
            return err_wrap(err, "start device '%s' %u", device->ops->section, device->instance);
        }
    }
    machine->are_devices_started = true;
    return NULL;
}

void machine_devices_stop(struct machine *machine)
{
    if (!machine->are_devices_started)
        return;
    for (size_t i = machine->device_count; i-- > 0;)
        machine->devices[i]->ops->stop(machine->devices[i]);
    machine->are_devices_started = false;
}

void machine_devices_reset(struct machine *machine)
{
    for (size_t i = 0; i < machine->device_count; i++)
        machine->devices[i]->ops->reset(machine->devices[i]);
}
