/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tls_identity.c - see tls_identity.h. Tested by: channel_tls_test.c.
 */
#include "migration/tls_identity.h"

#include <arpa/inet.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/limits.h"
#include "control/runtime_folder.h"
#include "migration/openssl.h"

/* Read ahead so that one receive brings several records. */
#define READ_BUFFER_BYTES (128u * KIB)

struct tls_identity {
    SSL_CTX *context; /* owned */
};

DEFINE_CLEANUP(identity, struct tls_identity, tls_identity_destroy)

static struct err *file_error(const char *what, const char *path)
{
    unsigned long code = ERR_peek_last_error();

    ERR_clear_error();
    if (access(path, R_OK) != 0)
        return err_new(ERR_NOT_FOUND,
                       "%s '%s' can not be read; 'vm-certs init' makes certificates for the first "
                       "host, 'vm-certs issue HOST' for the others",
                       what, path);
    return err_new(ERR_INVALID, "%s '%s': %s", what, path, ERR_reason_error_string(code));
}

static struct err *load_files(SSL_CTX *context, const char *folder)
{
    char path[PATH_BYTES_MAX + 1];

    (void)snprintf(path, sizeof(path), "%s/ca.pem", folder);
    if (SSL_CTX_load_verify_file(context, path) != 1)
        return file_error("certificate of the authority", path);
    (void)snprintf(path, sizeof(path), "%s/host.pem", folder);
    if (SSL_CTX_use_certificate_chain_file(context, path) != 1)
        return file_error("certificate of this host", path);
    (void)snprintf(path, sizeof(path), "%s/host-key.pem", folder);
    if (SSL_CTX_use_PrivateKey_file(context, path, SSL_FILETYPE_PEM) != 1)
        return file_error("key of this host", path);
    if (SSL_CTX_check_private_key(context) != 1)
        return err_new(ERR_INVALID, "'%s' is not the key of the certificate beside it", path);
    return NULL;
}

static struct err *set_up(SSL_CTX *context)
{
    /* AES-128 first: as strong here as needed, and the fastest. */
    if (SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:"
                                          "TLS_CHACHA20_POLY1305_SHA256") != 1 ||
        SSL_CTX_set_num_tickets(context, 0) != 1)
        return err_new(ERR_IO, "TLS 1.3: %s", ERR_reason_error_string(ERR_get_error()));
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    (void)SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_read_ahead(context, 1);
    SSL_CTX_set_default_read_buffer_len(context, READ_BUFFER_BYTES);
    return NULL;
}

struct err *tls_identity_load(const char *folder, struct tls_identity **out_identity)
{
    CLEANUP(cleanup_free) char *found = NULL;
    CLEANUP(cleanup_identity) struct tls_identity *identity = calloc(1, sizeof(*identity));

    if (identity == NULL)
        return err_new(ERR_NO_MEMORY, "certificates");
    if (folder == NULL) {
        TRY(config_folder(&found));
        folder = found;
    }
    identity->context = SSL_CTX_new(TLS_method());
    if (identity->context == NULL)
        return err_new(ERR_NO_MEMORY, "TLS");
    TRY(set_up(identity->context));
    TRY(load_files(identity->context, folder));
    *out_identity = TAKE_PTR(identity);
    return NULL;
}

void tls_identity_destroy(struct tls_identity *identity)
{
    if (identity == NULL)
        return;
    SSL_CTX_free(identity->context);
    free(identity);
}

SSL_CTX *tls_identity_context(const struct tls_identity *identity)
{
    return identity->context;
}

/* What this side found wrong with the other's certificate; NULL: nothing. */
static struct err *verify_error(SSL *ssl, const char *peer)
{
    long result = SSL_get_verify_result(ssl);

    switch (result) {
    case X509_V_OK: return NULL;
    case X509_V_ERR_CERT_HAS_EXPIRED:
        return err_new(ERR_DENIED,
                       "the certificate of '%s' has expired; make a new one with 'vm-certs issue'",
                       peer);
    case X509_V_ERR_CERT_NOT_YET_VALID:
        return err_new(ERR_DENIED,
                       "the certificate of '%s' is not valid yet; check the clocks of both hosts",
                       peer);
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
        return err_new(ERR_DENIED,
                       "the certificate of '%s' is signed by another authority than our ca.pem; "
                       "both hosts need certificates from the same 'vm-certs'",
                       peer);
    default:
        return err_new(ERR_DENIED, "the certificate of '%s': %s", peer,
                       X509_verify_cert_error_string(result));
    }
}

static const struct {
    int reason;
    const char *text;
} alerts[] = {
    {SSL_R_TLSV1_ALERT_UNKNOWN_CA,
     "does not believe our certificate: another authority than its ca.pem signed it; both hosts "
     "need certificates from the same 'vm-certs'"},
    {SSL_R_TLSV1_ALERT_DECRYPT_ERROR,
     "does not believe our certificate: another authority than its ca.pem signed it; both hosts "
     "need certificates from the same 'vm-certs'"},
    {SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED,
     "refused our certificate: it has expired; make a new one with 'vm-certs issue'"},
    {SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED,
     "wants a certificate and we sent none; make one with 'vm-certs issue'"},
    {SSL_R_SSLV3_ALERT_BAD_CERTIFICATE, "refused our certificate as damaged or not yet valid"},
    {SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE, "showed no certificate"},
    {SSL_R_WRONG_VERSION_NUMBER, "does not speak TLS; is 'vm-receive' listening there?"},
    {SSL_R_UNSUPPORTED_PROTOCOL, "speaks only versions of TLS before 1.3"},
};

struct err *tls_error(SSL *ssl, const char *peer, const char *doing)
{
    int reason = ERR_GET_REASON(ERR_peek_last_error());
    const char *text = ERR_reason_error_string(ERR_peek_last_error());

    ERR_clear_error();
    for (size_t i = 0; i < ARRAY_COUNT(alerts); i++)
        if (alerts[i].reason == reason)
            return err_new(ERR_DENIED, "'%s' %s", peer, alerts[i].text);
    if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED) {
        struct err *err = verify_error(ssl, peer);
        if (err != NULL)
            return err;
    }
    return err_new(ERR_IO, "%s '%s': %s", doing, peer,
                   text != NULL ? text : "the connection was closed");
}

/* The names and addresses that a certificate is for: "host-b, 10.0.0.2". */
static void certificate_names(X509 *certificate, char *out, size_t size)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);

    (void)snprintf(out, size, "%s", names == NULL ? "no name" : "");
    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        size_t used = strlen(out);
        const char *comma = i == 0 ? "" : ", ";

        if (name->type == GEN_DNS)
            (void)snprintf(out + used, size - used, "%s%.*s", comma,
                           ASN1_STRING_length(name->d.dNSName),
                           (const char *)ASN1_STRING_get0_data(name->d.dNSName));
        else if (name->type == GEN_IPADD && ASN1_STRING_length(name->d.iPAddress) == 4) {
            const uint8_t *ip = ASN1_STRING_get0_data(name->d.iPAddress);
            (void)snprintf(out + used, size - used, "%s%u.%u.%u.%u", comma, ip[0], ip[1], ip[2],
                           ip[3]);
        }
    }
    GENERAL_NAMES_free(names);
}

struct err *tls_check_host(SSL *ssl, const char *host)
{
    X509 *certificate = SSL_get0_peer_certificate(ssl);
    uint8_t address[16];
    char names[256];

    if (certificate == NULL)
        return err_new(ERR_DENIED, "'%s' showed no certificate", host);
    bool is_address =
        inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;
    int matches = is_address ? X509_check_ip_asc(certificate, host, 0)
                             : X509_check_host(certificate, host, 0, 0, NULL);
    if (matches == 1)
        return NULL;
    certificate_names(certificate, names, sizeof(names));
    return err_new(ERR_DENIED,
                   "the certificate that answers as '%s' is for %s; use one of these names, or "
                   "'vm-certs issue' a certificate with that name",
                   host, names);
}
