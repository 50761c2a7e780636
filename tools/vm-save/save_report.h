/* SPDX-License-Identifier: Apache-2.0 */
/*
 * save_report.h - tells the user what was saved.
 */
#ifndef TOOLS_SAVE_REPORT_H
#define TOOLS_SAVE_REPORT_H

#include <jansson.h>
#include <stdio.h>

struct disk_layers_result;
struct take_result;

void save_report_print(const struct take_result *result, const struct disk_layers_result *layers,
                       FILE *out);
json_t *save_report_json(const struct take_result *result, const struct disk_layers_result *layers);

#endif
