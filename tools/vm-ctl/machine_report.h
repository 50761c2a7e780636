/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine_report.h - a machine's status as a line, as text and as JSON.
 *
 * Thread: loop only.
 */
#ifndef TOOLS_VM_CTL_MACHINE_REPORT_H
#define TOOLS_VM_CTL_MACHINE_REPORT_H

#include <jansson.h>

#include "base/err.h"
#include "proto/control.pb-c.h"

struct control_client;

void machine_report_header(void);
void machine_report_line(const char *name, const struct control_client *client,
                         const Ferry__ControlStatus *status);
void machine_report_line_error(const char *name, const struct err *err);

void machine_report_text(const char *name, const struct control_client *client,
                         const Ferry__ControlStatus *status);

json_t *machine_report_json(const char *name, const struct control_client *client,
                            const Ferry__ControlStatus *status);
json_t *machine_report_json_error(const char *name, const struct err *err);

#endif
