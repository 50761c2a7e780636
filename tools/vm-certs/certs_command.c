/* SPDX-License-Identifier: Apache-2.0 */
/*
 * certs_command.c - see certs_command.h. Tested by: tests/system.
 */
#include "tools/vm-certs/certs_command.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "control/runtime_folder.h"
#include "migration/certificate_authority.h"

struct certs_options certs_options;

static struct err *authority_folder(char **out_folder)
{
    if (certs_options.folder == NULL)
        return config_folder(out_folder);
    *out_folder = strdup(certs_options.folder);
    return *out_folder != NULL ? NULL : err_new(ERR_NO_MEMORY, "folder of the authority");
}

/* The host itself, then every --name. */
static size_t all_names(const char *host, const char *names[CERTIFICATE_NAMES_MAX])
{
    size_t count = 0;

    names[count++] = host;
    for (size_t i = 0; i < certs_options.names.count && count < CERTIFICATE_NAMES_MAX; i++)
        names[count++] = certs_options.names.values[i];
    return count;
}

struct err *certs_init(const char *const *operands, size_t operand_count)
{
    CLEANUP(cleanup_free) char *folder = NULL;
    char host[HOST_NAME_MAX + 1] = "";
    const char *names[CERTIFICATE_NAMES_MAX];

    (void)operands;
    (void)operand_count;
    if (gethostname(host, sizeof(host) - 1) != 0 || host[0] == '\0')
        return err_new(ERR_NOT_FOUND, "this host has no name");
    TRY(authority_folder(&folder));
    TRY(certificate_authority_create(folder, host));
    TRY(certificate_issue(folder, names, all_names(host, names), (int)certs_options.days, folder));
    (void)printf("authority and certificate of '%s' are in %s\n"
                 "next: vm-certs issue HOST, for each other host\n",
                 host, folder);
    return NULL;
}

struct err *certs_issue(const char *const *operands, size_t operand_count)
{
    CLEANUP(cleanup_free) char *folder = NULL;
    CLEANUP(cleanup_free) char *out = NULL;
    const char *host = operands[0];
    const char *names[CERTIFICATE_NAMES_MAX];

    (void)operand_count;
    TRY(authority_folder(&folder));
    if (certs_options.out != NULL)
        out = strdup(certs_options.out);
    else if (asprintf(&out, "%s/hosts/%s", folder, host) < 0)
        out = NULL;
    if (out == NULL)
        return err_new(ERR_NO_MEMORY, "folder of '%s'", host);
    TRY(certificate_issue(folder, names, all_names(host, names), (int)certs_options.days, out));
    (void)printf("certificate of '%s' is in %s\n"
                 "next: copy the three files there into %s's configuration folder, which is\n"
                 "/etc/ferry for root; host-key.pem is a secret\n",
                 host, out, host);
    return NULL;
}
