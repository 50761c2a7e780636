/* SPDX-License-Identifier: Apache-2.0 */
/*
 * options.c - what the PVH start info says: the command line, and where RAM is.
 *
 * struct hvm_start_info: u32 magic, version, flags, nr_modules; u64 modlist, cmdline, rsdp,
 * memmap; u32 memmap_entries, reserved. A memory map entry: u64 address, size; u32 type, reserved.
 */
#include "tests/guests/guest.h"

#define RAM_TYPE 1

struct start_info {
    uint32_t magic, version, flags, module_count;
    uint64_t modules, command_line, rsdp, memory_map;
    uint32_t memory_map_count, reserved;
};

struct memory_map_entry {
    uint64_t address, size;
    uint32_t type, reserved;
};

static const struct start_info *info(void)
{
    return (const struct start_info *)start_info;
}

/* The value behind "key=" at a word's start, or NULL. */
static const char *find(const char *key)
{
    const char *at = (const char *)info()->command_line;

    while (*at != 0) {
        const char *k = key;
        while (*k != 0 && *at == *k) {
            at++;
            k++;
        }
        if (*k == 0 && *at == '=')
            return at + 1;
        while (*at != 0 && *at != ' ')
            at++;
        while (*at == ' ')
            at++;
    }
    return NULL;
}

uint64_t option_number(const char *key, uint64_t value_default)
{
    const char *at = find(key);
    uint64_t value = 0;

    if (at == NULL)
        return value_default;
    while (*at >= '0' && *at <= '9')
        value = value * 10 + (uint64_t)(*at++ - '0');
    return value;
}

bool option_has_word(const char *key, const char *word)
{
    const char *at = find(key);

    while (at != NULL && *at != 0 && *at != ' ') {
        const char *w = word;
        while (*w != 0 && *at == *w) {
            at++;
            w++;
        }
        if (*w == 0 && (*at == 0 || *at == ' ' || *at == ','))
            return true;
        while (*at != 0 && *at != ' ' && *at != ',')
            at++;
        if (*at == ',')
            at++;
    }
    return false;
}

extern char guest_end[];

static struct {
    uint64_t at, end;
} spans[8];
static unsigned span_count;

void ram_start(void)
{
    const struct memory_map_entry *map = (const struct memory_map_entry *)info()->memory_map;
    uint64_t above = ((uint64_t)guest_end + 0x1fffff) & ~(uint64_t)0x1fffff;

    for (uint32_t i = 0; i < info()->memory_map_count && span_count < 8; i++) {
        uint64_t start = map[i].address < above ? above : map[i].address;
        uint64_t end = map[i].address + map[i].size;
        /* The loader's own tables may lie at the end of low RAM. */
        if (map[i].type == RAM_TYPE && end > start + 0x200000) {
            spans[span_count].at = (start + 4095) & ~(uint64_t)4095;
            spans[span_count].end =
                (end < ((uint64_t)4 << 30) ? end - 0x100000 : end) & ~(uint64_t)4095;
            span_count++;
        }
    }
}

bool ram_take(uint64_t bytes, uint64_t *out_address)
{
    for (unsigned i = 0; i < span_count; i++) {
        if (spans[i].end - spans[i].at >= bytes) {
            *out_address = spans[i].at;
            spans[i].at += bytes;
            return true;
        }
    }
    return false;
}
