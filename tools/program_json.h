/* SPDX-License-Identifier: Apache-2.0 */
/*
 * program_json.h - JSON output of the programs, by jansson.
 *
 * Thread: loop only.
 */
#ifndef TOOLS_PROGRAM_JSON_H
#define TOOLS_PROGRAM_JSON_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

/* Prints one document, indented, and releases it. NULL prints nothing: jansson had no memory. */
void program_json_print(json_t *document);
/* Prints one line at once: an event of something that goes on. Releases it. */
void program_json_event(json_t *event);

/* A string of bytes that may not be UTF-8: those that are not become '?'. */
json_t *program_json_text(const char *text);
/* Lower-case hexadecimal. */
json_t *program_json_hex(const uint8_t *data, size_t len);

#endif
