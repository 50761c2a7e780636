/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine_description.c - the description of a machine: checked, copied, completed.
 * Tested by: tests/system.
 */
#include <stdlib.h>
#include <string.h>

#include "control/runtime_folder.h"
#include "vmm/cpu/cpuid.h"
#include "vmm/cpu/vcpu_set.h"
#include "vmm/kvm/kvm_vcpu.h"
#include "vmm/kvm/kvm_vm.h"
#include "vmm/machine/machine_internal.h"

#define BELOW_4G_MIB_MAX 3072u
#define UUID_BYTES       16u
#define MAC_BYTES        6u

static struct err *check_id(const char *what, const char *id)
{
    if (*id == '\0' || strlen(id) > MACHINE_NAME_MAX)
        return err_new(ERR_INVALID, "machine: a %s needs an id of 1..%u bytes", what,
                       MACHINE_NAME_MAX);
    return NULL;
}

/* One of three words, or nothing, which is the first; the NULL ones are no words. */
static struct err *check_word(const Ferry__DiskConfig *disk, const char *option, const char *word,
                              const char *const words[3])
{
    if (*word == '\0')
        return NULL;
    for (unsigned i = 0; i < 3 && words[i] != NULL; i++)
        if (strcmp(word, words[i]) == 0)
            return NULL;
    return err_new(ERR_INVALID, "disk '%s': %s '%.64s' is not known; it is %s%s%s or %s", disk->id,
                   option, word, words[0], words[2] == NULL ? "" : ", ",
                   words[2] == NULL ? "" : words[1], words[2] == NULL ? words[1] : words[2]);
}

static struct err *check_io(const Ferry__DiskConfig *disk)
{
    static const char *const caches[3] = {"writeback", "none"};
    static const char *const on_error[3] = {"enospc", "report", "stop"};
    static const char *const zeroes[3] = {"off", "on", "unmap"};
    static const char *const engines[3] = {"any", "threads", "io_uring"};

    TRY(check_word(disk, "cache", disk->cache, caches));
    TRY(check_word(disk, "on-error", disk->on_error, on_error));
    TRY(check_word(disk, "detect-zeroes", disk->detect_zeroes, zeroes));
    TRY(check_word(disk, "engine", disk->engine, engines));
    if (disk->queues > MACHINE_QUEUES_MAX)
        return err_new(ERR_INVALID, "disk '%s': %u queues; the most is %u", disk->id, disk->queues,
                       MACHINE_QUEUES_MAX);
    if (disk->requests_per_second > DISK_RATE_MAX || disk->bytes_per_second > DISK_RATE_MAX)
        return err_new(ERR_INVALID, "disk '%s': a limit of more than %llu a second", disk->id,
                       (unsigned long long)DISK_RATE_MAX);
    return NULL;
}

static struct err *check_disks(const Ferry__MachineConfig *config)
{
    if (config->n_disks > MACHINE_DISKS_MAX)
        return err_new(ERR_INVALID, "machine: %zu disks; the most is %u", config->n_disks,
                       MACHINE_DISKS_MAX);
    for (size_t i = 0; i < config->n_disks; i++) {
        const Ferry__DiskConfig *disk = config->disks[i];
        TRY(check_id("disk", disk->id));
        if (*disk->path == '\0' || strlen(disk->path) > PATH_BYTES_MAX)
            return err_new(ERR_INVALID, "disk '%s': path of 1..%u bytes wanted", disk->id,
                           PATH_BYTES_MAX);
        if (strcmp(disk->format, "raw") != 0 && strcmp(disk->format, "qcow2") != 0)
            return err_new(ERR_INVALID,
                           "disk '%s': format '%s' is not known; say format=raw or format=qcow2",
                           disk->id, disk->format);
        TRY(check_io(disk));
        TRY(disk_tracking_check(disk));
        for (size_t other = 0; other < i; other++) {
            if (strcmp(config->disks[other]->id, disk->id) == 0)
                return err_new(ERR_INVALID, "machine: two disks have the id '%s'", disk->id);
        }
    }
    return NULL;
}

static struct err *check_image_folders(const Ferry__MachineConfig *config)
{
    if (config->n_image_folders > IMAGE_FOLDERS_MAX)
        return err_new(ERR_INVALID, "machine: %zu folders of images; the most is %u",
                       config->n_image_folders, IMAGE_FOLDERS_MAX);
    for (size_t i = 0; i < config->n_image_folders; i++)
        if (config->image_folders[i][0] != '/' || strlen(config->image_folders[i]) > PATH_BYTES_MAX)
            return err_new(ERR_INVALID,
                           "machine: the folder of images '%.64s' is not an absolute path of at "
                           "most %u bytes",
                           config->image_folders[i], PATH_BYTES_MAX);
    return NULL;
}

static struct err *check_nets(const Ferry__MachineConfig *config)
{
    if (config->n_nets > MACHINE_NETS_MAX)
        return err_new(ERR_INVALID, "machine: %zu networks; the most is %u", config->n_nets,
                       MACHINE_NETS_MAX);
    for (size_t i = 0; i < config->n_nets; i++) {
        const Ferry__NetConfig *net = config->nets[i];
        TRY(check_id("network", net->id));
        if (net->mac.len != MAC_BYTES)
            return err_new(ERR_INVALID, "network '%s': a MAC address has 6 bytes", net->id);
        if (*net->tap == '\0' && !net->tap_by_fd)
            return err_new(ERR_INVALID, "network '%s': no tap interface and no descriptor of one",
                           net->id);
    }
    return NULL;
}

struct err *machine_config_check(const Ferry__MachineConfig *config)
{
    if (config == NULL)
        return err_new(ERR_INVALID, "machine: there is no configuration");
    TRY(machine_name_check(config->name));
    if (config->uuid.len != UUID_BYTES)
        return err_new(ERR_INVALID, "machine '%s': a UUID has 16 bytes", config->name);
    if (config->memory_mib == 0 || config->memory_mib > MACHINE_MEMORY_MIB_MAX)
        return err_new(ERR_INVALID, "machine '%s': %llu MiB of memory is not in 1..%llu",
                       config->name, (unsigned long long)config->memory_mib,
                       (unsigned long long)MACHINE_MEMORY_MIB_MAX);
    if (config->memory_below_4g_mib == 0 || config->memory_below_4g_mib > BELOW_4G_MIB_MAX ||
        config->memory_below_4g_mib > config->memory_mib)
        return err_new(ERR_INVALID, "machine '%s': %llu MiB of memory below 4 GiB is not in 1..%u",
                       config->name, (unsigned long long)config->memory_below_4g_mib,
                       BELOW_4G_MIB_MAX);
    if (config->vcpus == 0 || config->vcpus > MACHINE_VCPUS_MAX)
        return err_new(ERR_INVALID, "machine '%s': %u vCPUs is not in 1..%u", config->name,
                       config->vcpus, MACHINE_VCPUS_MAX);
    TRY(check_disks(config));
    TRY(check_image_folders(config));
    return check_nets(config);
}

struct err *machine_description_copy(const Ferry__MachineDescription *from,
                                     Ferry__MachineDescription **out_copy)
{
    size_t len = ferry__machine_description__get_packed_size(from);
    uint8_t *packed = malloc(len + 1);
    if (packed == NULL)
        return err_new(ERR_NO_MEMORY, "machine description");

    (void)ferry__machine_description__pack(from, packed);
    *out_copy = ferry__machine_description__unpack(NULL, len, packed);
    free(packed);
    return *out_copy == NULL ? err_new(ERR_NO_MEMORY, "machine description") : NULL;
}

static struct err *add_sections(const struct machine *machine,
                                Ferry__MachineDescription *description)
{
    description->sections = calloc(machine->device_count, sizeof(*description->sections));
    if (description->sections == NULL)
        return err_new(ERR_NO_MEMORY, "machine description");
    for (size_t i = 0; i < machine->device_count; i++) {
        const struct device_ops *ops = machine->devices[i]->ops;
        if (i > 0 && machine->devices[i - 1]->ops == ops)
            continue;
        Ferry__SectionKind *kind = malloc(sizeof(*kind));
        if (kind == NULL)
            return err_new(ERR_NO_MEMORY, "machine description");
        ferry__section_kind__init(kind);
        kind->version = ops->version;
        kind->name = strdup(ops->section);
        description->sections[description->n_sections++] = kind;
        if (kind->name == NULL)
            return err_new(ERR_NO_MEMORY, "machine description");
    }
    return NULL;
}

static struct err *complete(const struct machine *machine, Ferry__MachineDescription *description)
{
    for (size_t i = 0; i < description->n_cpuid; i++)
        ferry__cpuid_leaf__free_unpacked(description->cpuid[i], NULL);
    free(description->cpuid);
    description->cpuid = NULL;
    description->n_cpuid = 0;
    TRY(cpuid_to_description(machine->cpuid, description));

    for (size_t i = 0; i < description->n_sections; i++)
        ferry__section_kind__free_unpacked(description->sections[i], NULL);
    free(description->sections);
    description->sections = NULL;
    description->n_sections = 0;
    TRY(add_sections(machine, description));

    description->tsc_khz = kvm_vcpu_tsc_khz(vcpu_set_kvm(machine->vcpus, 0));
    description->xcr0_supported = cpuid_xcr0(machine->cpuid);
    return NULL;
}

struct err *machine_describe(const struct machine *machine,
                             Ferry__MachineDescription **out_description)
{
    Ferry__MachineDescription *description = NULL;
    TRY(machine_description_copy(machine->description, &description));
    struct err *err = complete(machine, description);
    if (err != NULL) {
        ferry__machine_description__free_unpacked(description, NULL);
        return err;
    }
    *out_description = description;
    return NULL;
}
