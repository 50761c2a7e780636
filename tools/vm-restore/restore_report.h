/* SPDX-License-Identifier: Apache-2.0 */
/*
 * restore_report.h - tells the user what was restored, and how long each phase took.
 */
#ifndef TOOLS_RESTORE_REPORT_H
#define TOOLS_RESTORE_REPORT_H

#include <jansson.h>
#include <stdio.h>

struct restore_result;

void restore_report_print(const struct restore_result *result, FILE *out);
json_t *restore_report_json(const struct restore_result *result);

#endif
