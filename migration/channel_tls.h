/* SPDX-License-Identifier: Apache-2.0 */
/*
 * channel_tls.h - TLS 1.3 over TCP, both sides with certificates.
 *
 * Takes the connected socket, also on failure. Thread: any; the handshake blocks up to its timeout.
 */
#ifndef MIGRATION_CHANNEL_TLS_H
#define MIGRATION_CHANNEL_TLS_H

#include "migration/channel.h"
#include "migration/timeouts.h"

struct tls_identity;

/* `host` is the name or address that the certificate of the other side must carry. */
ERR_RESULT channel_tls_connect(int fd, const char *host, const struct tls_identity *identity,
                               const struct timeouts *timeouts, struct channel **out_channel);
/* The peer is known afterwards by the common name of its certificate. */
ERR_RESULT channel_tls_accept(int fd, const char *address, const struct tls_identity *identity,
                              const struct timeouts *timeouts, struct channel **out_channel);

#endif
