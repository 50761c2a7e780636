/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vm_ctl.c - each command connects, asks one thing, and says what came of it.
 */
#include "tools/vm-ctl/vm_ctl.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/option_table.h"
#include "control/control_client.h"
#include "control/runtime_folder.h"
#include "tools/program.h"
#include "tools/program_json.h"
#include "tools/program_size.h"
#include "tools/program_units.h"
#include "tools/vm-ctl/console_relay.h"
#include "tools/vm-ctl/machine_report.h"

#define PROGRAM "vm-ctl"

struct vm_ctl_settings vm_ctl_settings;

DEFINE_CLEANUP(client, struct control_client, control_client_close)

static void reply_free(Ferry__ControlReply *reply)
{
    if (reply != NULL)
        ferry__control_reply__free_unpacked(reply, NULL);
}
DEFINE_CLEANUP(reply, Ferry__ControlReply, reply_free)

/* One machine's line, or why there is none: a machine that hangs is listed as that. */
static struct err *list_one(const char *name, json_t *array)
{
    CLEANUP(cleanup_client) struct control_client *client = NULL;
    CLEANUP(cleanup_reply) Ferry__ControlReply *reply = NULL;
    struct err *err = control_client_connect(name, PROGRAM, &client);
    if (err == NULL)
        err = control_status(client, &reply);
    if (err != NULL && err_kind(err) == ERR_NOT_FOUND) { /* the socket of one that died */
        err_free(err);
        return NULL;
    }
    if (array != NULL)
        json_array_append_new(array, err == NULL ? machine_report_json(name, client, reply->status)
                                                 : machine_report_json_error(name, err));
    else if (err == NULL)
        machine_report_line(name, client, reply->status);
    else
        machine_report_line_error(name, err);
    err_free(err);
    return NULL;
}

struct err *vm_ctl_list(const char *const *operands, size_t operand_count)
{
    char **names;
    size_t count;
    (void)operands;
    (void)operand_count;
    TRY(machine_names(&names, &count));

    json_t *array = vm_ctl_settings.json ? json_array() : NULL;
    if (array == NULL)
        machine_report_header();
    struct err *err = NULL;
    for (size_t i = 0; i < count; i++) {
        if (err == NULL)
            err = list_one(names[i], array);
        free(names[i]);
    }
    free(names);
    if (array != NULL)
        program_json_print(json_pack("{s:o}", "machines", array));
    return err;
}

struct err *vm_ctl_status(const char *const *operands, size_t operand_count)
{
    CLEANUP(cleanup_client) struct control_client *client = NULL;
    CLEANUP(cleanup_reply) Ferry__ControlReply *reply = NULL;
    (void)operand_count;
    TRY(control_client_connect(operands[0], PROGRAM, &client));
    TRY(control_status(client, &reply));
    if (vm_ctl_settings.json)
        program_json_print(machine_report_json(operands[0], client, reply->status));
    else
        machine_report_text(operands[0], client, reply->status);
    return NULL;
}

struct err *vm_ctl_pause(const char *const *operands, size_t operand_count)
{
    CLEANUP(cleanup_client) struct control_client *client = NULL;
    (void)operand_count;
    TRY(control_client_connect(operands[0], PROGRAM, &client));
    return control_pause(client, false, NULL);
}

struct err *vm_ctl_resume(const char *const *operands, size_t operand_count)
{
    CLEANUP(cleanup_client) struct control_client *client = NULL;
    (void)operand_count;
    TRY(control_client_connect(operands[0], PROGRAM, &client));
    return control_resume(client);
}

/* The connection's end is the process's end. */
static struct err *wait_for_end(const struct control_client *client, const char *name)
{
    if (vm_ctl_settings.wait_s == 0)
        return NULL;
    uint64_t deadline_ns = clock_monotonic_ns() + vm_ctl_settings.wait_s * NS_PER_S;
    for (;;) {
        uint64_t now_ns = clock_monotonic_ns();
        if (now_ns >= deadline_ns)
            return err_new(ERR_TIMEOUT, "machine '%s' still runs after %llu s", name,
                           (unsigned long long)vm_ctl_settings.wait_s);
        struct pollfd poll_fd = {.fd = control_client_fd(client), .events = POLLIN};
        int ready = poll(&poll_fd, 1, (int)((deadline_ns - now_ns) / NS_PER_MS) + 1);
        if (ready > 0)
            return NULL;
        if (ready < 0 && errno != EINTR)
            return err_errno(errno, "wait for machine '%s'", name);
    }
}

struct err *vm_ctl_quit(const char *const *operands, size_t operand_count)
{
    CLEANUP(cleanup_client) struct control_client *client = NULL;
    (void)operand_count;
    TRY(control_client_connect(operands[0], PROGRAM, &client));
    TRY(control_quit(client, "asked by " PROGRAM));
    return wait_for_end(client, operands[0]);
}

struct err *vm_ctl_power_off(const char *const *operands, size_t operand_count)
{
    if (vm_ctl_settings.force)
        return vm_ctl_quit(operands, operand_count);
    CLEANUP(cleanup_client) struct control_client *client = NULL;
    TRY(control_client_connect(operands[0], PROGRAM, &client));
    TRY(control_power_button(client));
    return wait_for_end(client, operands[0]);
}

struct err *vm_ctl_reset(const char *const *operands, size_t operand_count)
{
    CLEANUP(cleanup_client) struct control_client *client = NULL;
    (void)operand_count;
    TRY(control_client_connect(operands[0], PROGRAM, &client));
    return control_reset(client);
}

struct err *vm_ctl_resize_disk(const char *const *operands, size_t operand_count)
{
    CLEANUP(cleanup_client) struct control_client *client = NULL;
    const char *text = operands[2];
    bool is_more = *text == '+';
    uint64_t bytes = 0, virtual_bytes = 0;
    (void)operand_count;
    program_check_usage(program_size_parse("size", text + (is_more ? 1 : 0), &bytes));
    TRY(control_client_connect(operands[0], PROGRAM, &client));
    TRY(control_grow_disk(client, operands[1], bytes, is_more, &virtual_bytes));
    if (vm_ctl_settings.json)
        program_json_print(json_pack("{s:o, s:I}", "disk", program_json_text(operands[1]),
                                     "virtual_bytes", (json_int_t)virtual_bytes));
    else
        (void)printf("%s: %s\n", operands[1], readable_bytes(virtual_bytes).text);
    return NULL;
}

#define LIMIT_AS_IT_IS UINT64_MAX

struct limit_spec {
    uint64_t requests_per_second;
    uint64_t bytes_per_second;
};

/* The words of vm-run's --disk. */
static const struct option_row limit_rows[] = {
    OPTION_NUMBER("iops", 0, struct limit_spec, requests_per_second, "COUNT", 0, DISK_RATE_MAX,
                  LIMIT_AS_IT_IS, "requests a second, at most"),
    OPTION_NUMBER("bps", 0, struct limit_spec, bytes_per_second, "BYTES", 0, DISK_RATE_MAX,
                  LIMIT_AS_IT_IS, "bytes a second, at most"),
};

static const uint64_t *limit_or_null(const uint64_t *limit)
{
    return *limit == LIMIT_AS_IT_IS ? NULL : limit;
}

struct err *vm_ctl_limit_disk(const char *const *operands, size_t operand_count)
{
    CLEANUP(cleanup_client) struct control_client *client = NULL;
    CLEANUP(cleanup_free) char *copy = strdup(operands[2]);
    struct limit_spec spec;
    (void)operand_count;
    if (copy == NULL)
        return err_new(ERR_NO_MEMORY, "limits");
    program_check_usage(
        option_spec_parse("limit-disk", limit_rows, ARRAY_COUNT(limit_rows), copy, &spec));
    if (limit_or_null(&spec.requests_per_second) == NULL &&
        limit_or_null(&spec.bytes_per_second) == NULL)
        program_check_usage(err_new(ERR_INVALID, "limit-disk: say iops=, bps= or both"));
    TRY(control_client_connect(operands[0], PROGRAM, &client));
    return control_limit_disk(client, operands[1], limit_or_null(&spec.requests_per_second),
                              limit_or_null(&spec.bytes_per_second));
}

struct err *vm_ctl_console(const char *const *operands, size_t operand_count)
{
    CLEANUP(cleanup_client) struct control_client *client = NULL;
    CLEANUP(cleanup_fd) int console = -1;
    (void)operand_count;
    TRY(control_client_connect(operands[0], PROGRAM, &client));
    TRY(control_console(client, &console));
    return console_relay(console, operands[0]);
}
