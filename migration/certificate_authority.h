/* SPDX-License-Identifier: Apache-2.0 */
/*
 * certificate_authority.h - makes the certificates by which hosts know each other.
 *
 * EC P-256 throughout. A folder holds ca.pem and ca-key.pem on the host that issues, and ca.pem,
 * host.pem and host-key.pem on every host. Keys are readable by their owner only. Thread: any.
 */
#ifndef MIGRATION_CERTIFICATE_AUTHORITY_H
#define MIGRATION_CERTIFICATE_AUTHORITY_H

#include <stddef.h>

#include "base/err.h"

#define CERTIFICATE_DAYS_CA   3650
#define CERTIFICATE_DAYS_HOST 825
#define CERTIFICATE_NAMES_MAX 32u

/* Makes ca.pem and ca-key.pem. ERR_STATE when there are such files: replacing an authority cuts off
 * every host that believes the old one. */
ERR_RESULT certificate_authority_create(const char *folder, const char *name);

/* Makes host.pem and host-key.pem in `to_folder`, and a copy of ca.pem, signed by the authority in
 * `ca_folder`. names: what the host is called and its addresses, the first being its common name.
 * days may be negative: expired from the start. */
ERR_RESULT certificate_issue(const char *ca_folder, const char *const *names, size_t name_count,
                             int days, const char *to_folder);

#endif
