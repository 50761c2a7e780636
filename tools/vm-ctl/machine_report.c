/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine_report.c - see machine_report.h. Tested by: vm_ctl_test.c
 */
#include "tools/vm-ctl/machine_report.h"

#include <stdio.h>

#include "base/checked_math.h"
#include "base/limits.h"
#include "control/control_client.h"
#include "tools/program_json.h"
#include "tools/program_units.h"

static const char *state_name(Ferry__ControlRunState state)
{
    static const char *const names[] = {
        [FERRY__CONTROL_RUN_STATE__RUN_STATE_UNSPECIFIED] = "unknown",
        [FERRY__CONTROL_RUN_STATE__RUN_STATE_EMPTY] = "empty",
        [FERRY__CONTROL_RUN_STATE__RUN_STATE_INCOMING] = "incoming",
        [FERRY__CONTROL_RUN_STATE__RUN_STATE_RUNNING] = "running",
        [FERRY__CONTROL_RUN_STATE__RUN_STATE_PAUSED] = "paused",
        [FERRY__CONTROL_RUN_STATE__RUN_STATE_HANDED_OVER] = "handed-over",
        [FERRY__CONTROL_RUN_STATE__RUN_STATE_FAILED] = "failed",
        [FERRY__CONTROL_RUN_STATE__RUN_STATE_OFF] = "off",
    };
    size_t index = (size_t)state;
    return index < ARRAY_COUNT(names) ? names[index] : "unknown";
}

void machine_report_header(void)
{
    (void)printf("%-20s %-11s %7s %5s %9s  %s\n", "NAME", "STATE", "PID", "VCPUS", "MEMORY", "UP");
}

void machine_report_line(const char *name, const struct control_client *client,
                         const Ferry__ControlStatus *status)
{
    uint32_t vcpus = status->config == NULL ? 0 : status->config->vcpus;
    uint64_t bytes = status->config == NULL ? 0 : status->config->memory_mib * MIB;
    (void)printf("%-20s %-11s %7u %5u %9s  %s\n", name, state_name(status->state),
                 control_client_pid(client), vcpus, readable_bytes(bytes).text,
                 readable_ms(status->uptime_ms).text);
}

void machine_report_line_error(const char *name, const struct err *err)
{
    (void)printf("%-20s %s\n", name, err_message(err));
}

static unsigned queues_of(const Ferry__DiskConfig *disk)
{
    return disk->queues == 0 ? 1 : disk->queues;
}

static void print_disk(const Ferry__DiskConfig *disk)
{
    unsigned queues = queues_of(disk);

    (void)printf("disk:        %s: %s (%s, %u queue%s%s", disk->id, disk->path, disk->format,
                 queues, queues == 1 ? "" : "s", disk->read_only ? ", read only" : "");
    if (disk->requests_per_second > 0)
        (void)printf(", %llu requests/s at most", (unsigned long long)disk->requests_per_second);
    if (disk->bytes_per_second > 0)
        (void)printf(", %s/s at most", readable_bytes(disk->bytes_per_second).text);
    (void)printf(")\n");
}

static void print_config(const Ferry__MachineConfig *config)
{
    (void)printf("vcpus:       %u (%s)\n", config->vcpus, config->cpu_model);
    (void)printf("memory:      %s\n", readable_bytes(config->memory_mib * MIB).text);
    for (size_t i = 0; i < config->n_disks; i++)
        print_disk(config->disks[i]);
    for (size_t i = 0; i < config->n_nets; i++)
        (void)printf("network:     %s%s%s\n", config->nets[i]->id,
                     config->nets[i]->tap[0] != '\0' ? ": " : "", config->nets[i]->tap);
}

void machine_report_text(const char *name, const struct control_client *client,
                         const Ferry__ControlStatus *status)
{
    (void)printf("name:        %s\n", name);
    (void)printf("state:       %s%s%s\n", state_name(status->state),
                 status->detail[0] != '\0' ? ": " : "", status->detail);
    for (size_t i = 0; i < status->n_problems; i++)
        (void)printf("problem:     %s\n", status->problems[i]);
    (void)printf("pid:         %u\n", control_client_pid(client));
    if (status->config != NULL)
        print_config(status->config);
    (void)printf("up:          %s\n", readable_ms(status->uptime_ms).text);
    (void)printf("paused:      %s in all, %s the last time\n", readable_ms(status->paused_ms).text,
                 readable_us(status->last_pause_us).text);
    if (status->handed_to[0] != '\0')
        (void)printf("handed to:   %s\n", status->handed_to);
    if (status->memory_loading_bytes > 0)
        (void)printf("loading:     %s to go\n", readable_bytes(status->memory_loading_bytes).text);
    if (status->is_interpreted)
        (void)printf("note:        this host's KVM interprets guest kernels, which is slow\n");
    for (size_t i = 0; i < status->n_counters; i++)
        (void)printf("%-28s %llu %s\n", status->counters[i]->name,
                     (unsigned long long)status->counters[i]->value, status->counters[i]->unit);
}

static json_t *disk_json(const Ferry__DiskConfig *disk)
{
    const char *engine = disk->engine[0] == '\0' ? "any" : disk->engine;

    return json_pack("{s:o, s:o, s:o, s:b, s:o, s:i, s:I, s:I}", "id", program_json_text(disk->id),
                     "path", program_json_text(disk->path), "format",
                     program_json_text(disk->format), "read_only", disk->read_only, "engine",
                     program_json_text(engine), "queues", (int)queues_of(disk),
                     "requests_per_second", (json_int_t)disk->requests_per_second,
                     "bytes_per_second", (json_int_t)disk->bytes_per_second);
}

static json_t *config_json(const Ferry__MachineConfig *config)
{
    json_t *disks = json_array();
    json_t *nets = json_array();
    for (size_t i = 0; i < config->n_disks; i++)
        json_array_append_new(disks, disk_json(config->disks[i]));
    for (size_t i = 0; i < config->n_nets; i++)
        json_array_append_new(
            nets, json_pack("{s:o, s:o, s:o}", "id", program_json_text(config->nets[i]->id), "tap",
                            program_json_text(config->nets[i]->tap), "mac",
                            program_json_hex(config->nets[i]->mac.data, config->nets[i]->mac.len)));
    return json_pack("{s:o, s:I, s:i, s:o, s:o, s:o}", "uuid",
                     program_json_hex(config->uuid.data, config->uuid.len), "memory_mib",
                     (json_int_t)config->memory_mib, "vcpus", (int)config->vcpus, "cpu_model",
                     program_json_text(config->cpu_model), "disks", disks, "nets", nets);
}

json_t *machine_report_json(const char *name, const struct control_client *client,
                            const Ferry__ControlStatus *status)
{
    json_t *counters = json_object();
    for (size_t i = 0; i < status->n_counters; i++)
        json_object_set_new(counters, status->counters[i]->name,
                            json_integer((json_int_t)status->counters[i]->value));
    json_t *report = json_pack(
        "{s:o, s:s, s:o, s:I, s:I, s:I, s:I, s:b, s:I, s:I, s:I, s:o}", "name",
        program_json_text(name), "state", state_name(status->state), "detail",
        program_json_text(status->detail), "pid", (json_int_t)control_client_pid(client),
        "uptime_ms", (json_int_t)status->uptime_ms, "paused_ms", (json_int_t)status->paused_ms,
        "last_pause_us", (json_int_t)status->last_pause_us, "is_interpreted",
        status->is_interpreted, "memory_loading_bytes", (json_int_t)status->memory_loading_bytes,
        "first_run_ns", (json_int_t)status->first_run_ns, "last_exit_ns",
        (json_int_t)status->last_exit_ns, "counters", counters);
    json_t *problems = json_array();
    for (size_t i = 0; i < status->n_problems; i++)
        json_array_append_new(problems, program_json_text(status->problems[i]));
    if (report == NULL)
        json_decref(problems);
    else
        json_object_set_new(report, "problems", problems);
    if (report != NULL && status->config != NULL)
        json_object_set_new(report, "config", config_json(status->config));
    if (report != NULL && status->handed_to[0] != '\0')
        json_object_set_new(report, "handed_to", program_json_text(status->handed_to));
    return report;
}

json_t *machine_report_json_error(const char *name, const struct err *err)
{
    return json_pack("{s:o, s:{s:s, s:o}}", "name", program_json_text(name), "error", "kind",
                     err_kind_name(err_kind(err)), "message", program_json_text(err_message(err)));
}
