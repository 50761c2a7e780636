/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dialer.h - opens connections to one target host, each with the hello that says what it is for.
 *
 * Thread: any; calls block up to their timeouts.
 */
#ifndef MIGRATION_DIALER_H
#define MIGRATION_DIALER_H

#include "migration/channel.h"
#include "migration/frame_stream.h"
#include "migration/host_address.h"
#include "migration/session_id.h"
#include "migration/timeouts.h"

#define MIGRATION_PROTOCOL 1u

struct tls_identity;
struct dialer;

struct dialer_ops {
    const char *name;
    struct err *(*dial)(struct dialer *dialer, const struct session_id *route,
                        struct channel **out_channel);
};

struct dialer {
    const struct dialer_ops *ops;
    const struct timeouts *timeouts;
};

/* TCP and TLS. All but `base` is filled by the caller and borrowed. */
struct dialer_tls {
    struct dialer base;
    struct host_address address;
    const struct tls_identity *identity;
};
void dialer_tls_init(struct dialer_tls *dialer, const struct host_address *address,
                     const struct tls_identity *identity, const struct timeouts *timeouts);

/* A new connection whose hello has been sent; the answer is the caller's to read. */
ERR_RESULT dialer_hello(struct dialer *dialer, const struct session_id *route,
                        Ferry__MigrationPurpose purpose, struct session_id *session,
                        uint32_t channel_index, struct frame_stream **out_stream);

/* This host's name and this program's, as a hello and a welcome carry them. */
const char *local_host_name(void);
const char *local_program(void);

#endif
