/* SPDX-License-Identifier: Apache-2.0 */
/*
 * program_json.c - see program_json.h.
 */
#include "tools/program_json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

static void print_and_release(json_t *document, size_t flags)
{
    if (document == NULL)
        return;
    (void)json_dumpf(document, stdout, flags);
    (void)fputc('\n', stdout);
    (void)fflush(stdout);
    json_decref(document);
}

void program_json_print(json_t *document)
{
    print_and_release(document, JSON_INDENT(2));
}

void program_json_event(json_t *event)
{
    print_and_release(event, JSON_COMPACT);
}

json_t *program_json_text(const char *text)
{
    json_t *string = json_string(text);
    if (string != NULL)
        return string;
    CLEANUP(cleanup_free) char *copy = strdup(text);
    for (char *at = copy; at != NULL && *at != '\0'; at++)
        if ((unsigned char)*at >= 0x80)
            *at = '?';
    return copy == NULL ? NULL : json_string(copy);
}

json_t *program_json_hex(const uint8_t *data, size_t len)
{
    static const char digits[] = "0123456789abcdef";
    CLEANUP(cleanup_free) char *text = malloc(2 * len + 1);
    if (text == NULL)
        return NULL;
    for (size_t i = 0; i < len; i++) {
        text[2 * i] = digits[data[i] >> 4];
        text[2 * i + 1] = digits[data[i] & 15];
    }
    return json_stringn(text, 2 * len);
}
