/* SPDX-License-Identifier: Apache-2.0 */
/*
 * interrupts_fake.c - counts what devices fire, and remembers lines and notifications.
 *
 * Tested by: the tests of every device.
 */
#include "vmm/bus/interrupts_fake.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/checked_math.h"

#define LINES    24
#define VECTORS  64
#define NOTIFIES 64

struct fake_vector {
    bool is_used;
    uint64_t address;
    uint32_t data;
    atomic_uint fired; /* a counter alone */
};

struct fake_notify {
    int fd; /* borrowed; -1: free */
    uint64_t address;
};

struct interrupts_fake {
    struct interrupts base;
    atomic_bool lines[LINES]; /* flags alone */
    struct fake_vector vectors[VECTORS];
    struct fake_notify notifies[NOTIFIES];
};

static struct interrupts_fake *fake_of(struct interrupts *interrupts)
{
    return CONTAINER_OF(interrupts, struct interrupts_fake, base);
}

static void fake_set_line(struct interrupts *interrupts, uint32_t gsi, bool is_high)
{
    ASSERT(gsi < LINES);
    atomic_store(&fake_of(interrupts)->lines[gsi], is_high);
}

static struct err *fake_msi_create(struct interrupts *interrupts, uint32_t *out_vector)
{
    struct interrupts_fake *fake = fake_of(interrupts);

    for (uint32_t i = 0; i < VECTORS; i++) {
        if (fake->vectors[i].is_used)
            continue;
        fake->vectors[i] = (struct fake_vector){.is_used = true};
        *out_vector = i;
        return NULL;
    }
    return err_new(ERR_STATE, "all %d interrupt vectors are used", VECTORS);
}

static void fake_msi_destroy(struct interrupts *interrupts, uint32_t vector)
{
    ASSERT(vector < VECTORS && fake_of(interrupts)->vectors[vector].is_used);
    fake_of(interrupts)->vectors[vector].is_used = false;
}

static struct err *fake_msi_set(struct interrupts *interrupts, uint32_t vector, uint64_t address,
                                uint32_t data)
{
    ASSERT(vector < VECTORS && fake_of(interrupts)->vectors[vector].is_used);
    fake_of(interrupts)->vectors[vector].address = address;
    fake_of(interrupts)->vectors[vector].data = data;
    return NULL;
}

static void fake_msi_fire(struct interrupts *interrupts, uint32_t vector)
{
    ASSERT(vector < VECTORS && fake_of(interrupts)->vectors[vector].is_used);
    atomic_fetch_add(&fake_of(interrupts)->vectors[vector].fired, 1);
}

static struct err *fake_notify_add(struct interrupts *interrupts, uint64_t mmio_address, int fd)
{
    struct interrupts_fake *fake = fake_of(interrupts);

    for (size_t i = 0; i < NOTIFIES; i++) {
        if (fake->notifies[i].fd >= 0)
            continue;
        fake->notifies[i] = (struct fake_notify){.fd = fd, .address = mmio_address};
        return NULL;
    }
    return err_new(ERR_STATE, "all %d notifications are used", NOTIFIES);
}

static void fake_notify_remove(struct interrupts *interrupts, uint64_t mmio_address, int fd)
{
    struct interrupts_fake *fake = fake_of(interrupts);

    for (size_t i = 0; i < NOTIFIES; i++) {
        if (fake->notifies[i].fd == fd && fake->notifies[i].address == mmio_address) {
            fake->notifies[i].fd = -1;
            return;
        }
    }
    UNREACHABLE();
}

static const struct interrupts_ops interrupts_fake_ops = {
    .set_line = fake_set_line,
    .msi_create = fake_msi_create,
    .msi_destroy = fake_msi_destroy,
    .msi_set = fake_msi_set,
    .msi_fire = fake_msi_fire,
    .notify_add = fake_notify_add,
    .notify_remove = fake_notify_remove,
};

struct err *interrupts_fake_create(struct interrupts_fake **out_fake)
{
    struct interrupts_fake *fake = calloc(1, sizeof(*fake));
    if (fake == NULL)
        return err_new(ERR_NO_MEMORY, "fake interrupts");

    fake->base.ops = &interrupts_fake_ops;
    for (size_t i = 0; i < NOTIFIES; i++)
        fake->notifies[i].fd = -1;
    *out_fake = fake;
    return NULL;
}

void interrupts_fake_destroy(struct interrupts_fake *fake)
{
    free(fake);
}

struct interrupts *interrupts_fake_interrupts(struct interrupts_fake *fake)
{
    return &fake->base;
}

bool interrupts_fake_line(const struct interrupts_fake *fake, uint32_t gsi)
{
    return atomic_load(&fake->lines[gsi]);
}

unsigned interrupts_fake_fired(const struct interrupts_fake *fake, uint32_t data)
{
    unsigned fired = 0;

    for (size_t i = 0; i < VECTORS; i++) {
        if (fake->vectors[i].is_used && fake->vectors[i].data == data)
            fired += atomic_load(&fake->vectors[i].fired);
    }
    return fired;
}

int interrupts_fake_notify_fd(const struct interrupts_fake *fake, uint64_t mmio_address)
{
    for (size_t i = 0; i < NOTIFIES; i++) {
        if (fake->notifies[i].fd >= 0 && fake->notifies[i].address == mmio_address)
            return fake->notifies[i].fd;
    }
    return -1;
}

unsigned interrupts_fake_notify_count(const struct interrupts_fake *fake)
{
    unsigned count = 0;

    for (size_t i = 0; i < NOTIFIES; i++)
        count += fake->notifies[i].fd >= 0;
    return count;
}

unsigned interrupts_fake_vector_count(const struct interrupts_fake *fake)
{
    unsigned count = 0;

    for (size_t i = 0; i < VECTORS; i++)
        count += fake->vectors[i].is_used;
    return count;
}
