/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tls_identity.h - who this host is, and whom it believes: ca.pem, host.pem, host-key.pem.
 *
 * Thread: any; an identity is not changed after it is loaded.
 */
#ifndef MIGRATION_TLS_IDENTITY_H
#define MIGRATION_TLS_IDENTITY_H

#include "base/err.h"
#include "migration/openssl.h"

struct tls_identity;

/* NULL folder: the configuration folder. Each error names the file and what to do. */
ERR_RESULT tls_identity_load(const char *folder, struct tls_identity **out_identity);
void tls_identity_destroy(struct tls_identity *identity); /* accepts NULL */
SSL_CTX *tls_identity_context(const struct tls_identity *identity);

/* Is the certificate that was shown for this name or address? */
ERR_RESULT tls_check_host(SSL *ssl, const char *host);

/* Why a handshake or a transfer with `peer` failed, in words that say what to do; takes what
 * OpenSSL has queued. */
ERR_RESULT tls_error(SSL *ssl, const char *peer, const char *doing);

#endif
