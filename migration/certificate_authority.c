/* SPDX-License-Identifier: Apache-2.0 */
/*
 * certificate_authority.c - see certificate_authority.h. Tested by: channel_tls_test.c.
 */
#include "migration/certificate_authority.h"

#include <arpa/inet.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file_io.h"
#include "base/limits.h"
#include "migration/openssl.h"

#define SECONDS_A_DAY   86400L
#define PEM_BYTES_MAX   (64u * KIB)
#define HOST_NAME_BYTES 253u

DEFINE_CLEANUP(key, EVP_PKEY, EVP_PKEY_free)
DEFINE_CLEANUP(certificate, X509, X509_free)

static void cleanup_bio(BIO **bio)
{
    (void)BIO_free(*bio);
}

static struct err *openssl_error(const char *doing)
{
    const char *text = ERR_reason_error_string(ERR_get_error());

    ERR_clear_error();
    return err_new(ERR_IO, "%s: %s", doing, text == NULL ? "OpenSSL failed" : text);
}

static struct err *path_in(const char *folder, const char *name, char path[PATH_BYTES_MAX + 1])
{
    int len = snprintf(path, PATH_BYTES_MAX + 1, "%s/%s", folder, name);

    if (len < 0 || (size_t)len > PATH_BYTES_MAX)
        return err_new(ERR_INVALID, "folder '%s': its name is too long", folder);
    return NULL;
}

static struct err *write_bio(BIO *bio, const char *folder, const char *name, unsigned mode)
{
    char path[PATH_BYTES_MAX + 1];
    char *data = NULL;
    long len = BIO_get_mem_data(bio, &data);

    TRY(path_in(folder, name, path));
    return file_replace(path, data, (size_t)len, mode);
}

static struct err *write_key(EVP_PKEY *key, const char *folder, const char *name)
{
    CLEANUP(cleanup_bio) BIO *bio = BIO_new(BIO_s_mem());

    if (bio == NULL || PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) != 1)
        return openssl_error("write key");
    return write_bio(bio, folder, name, 0600);
}

static struct err *write_certificate(X509 *certificate, const char *folder, const char *name)
{
    CLEANUP(cleanup_bio) BIO *bio = BIO_new(BIO_s_mem());

    if (bio == NULL || PEM_write_bio_X509(bio, certificate) != 1)
        return openssl_error("write certificate");
    return write_bio(bio, folder, name, 0644);
}

static struct err *read_pem(const char *folder, const char *name, BIO **out_bio)
{
    char path[PATH_BYTES_MAX + 1];
    CLEANUP(cleanup_free) void *data = NULL;
    size_t len = 0;

    TRY(path_in(folder, name, path));
    if (access(path, F_OK) != 0)
        return err_new(ERR_NOT_FOUND, "no authority in '%s'; make one with 'vm-certs init'",
                       folder);
    TRY(file_read_all(path, PEM_BYTES_MAX, &data, &len));
    BIO *bio = BIO_new(BIO_s_mem());
    if (bio == NULL || BIO_write(bio, data, (int)len) != (int)len) {
        (void)BIO_free(bio);
        return openssl_error("read authority");
    }
    *out_bio = bio;
    return NULL;
}

static bool add_extension(X509 *certificate, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX context;

    X509V3_set_ctx_nodb(&context);
    X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    bool is_added = extension != NULL && X509_add_ext(certificate, extension, -1) == 1;
    X509_EXTENSION_free(extension);
    return is_added;
}

/* A certificate with subject, key, serial and dates; extensions and signature are to follow. */
static X509 *certificate_new(EVP_PKEY *key, const char *common_name, int days)
{
    uint8_t serial_bytes[16];
    X509 *certificate = X509_new();
    X509_NAME *name = certificate == NULL ? NULL : X509_get_subject_name(certificate);

    if (name == NULL || RAND_bytes(serial_bytes, sizeof(serial_bytes)) != 1)
        return certificate;
    serial_bytes[0] &= 0x7f; /* positive */
    BIGNUM *serial = BN_bin2bn(serial_bytes, sizeof(serial_bytes), NULL);
    (void)BN_to_ASN1_INTEGER(serial, X509_get_serialNumber(certificate));
    BN_free(serial);
    (void)X509_set_version(certificate, X509_VERSION_3);
    (void)X509_set_pubkey(certificate, key);
    /* From yesterday, for hosts whose clocks differ a little; an expired one from before that. */
    long from = -SECONDS_A_DAY + (days < 0 ? (days - 1) * SECONDS_A_DAY : 0);
    (void)X509_gmtime_adj(X509_getm_notBefore(certificate), from);
    (void)X509_gmtime_adj(X509_getm_notAfter(certificate), days * SECONDS_A_DAY);
    (void)X509_NAME_add_entry_by_txt(name, "O", MBSTRING_ASC, (const uint8_t *)"Ferry", -1, -1, 0);
    (void)X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const uint8_t *)common_name, -1,
                                     -1, 0);
    return certificate;
}

struct err *certificate_authority_create(const char *folder, const char *name)
{
    char path[PATH_BYTES_MAX + 1];
    char common_name[64]; /* the most that a common name may have */

    TRY(folder_create(folder, 0700));
    TRY(path_in(folder, "ca.pem", path));
    if (access(path, F_OK) == 0)
        return err_new(ERR_STATE,
                       "authority '%s' exists; every host that believes it would be cut off, so "
                       "remove it by hand if you mean it",
                       path);
    CLEANUP(cleanup_key) EVP_PKEY *key = EVP_EC_gen("P-256");
    if (key == NULL)
        return openssl_error("make key");
    /* A space is in no host's name: a certificate that bears its issuer's name counts as
     * self-signed. */
    (void)snprintf(common_name, sizeof(common_name), "%.40s authority", name);
    CLEANUP(cleanup_certificate) X509 *ca = certificate_new(key, common_name, CERTIFICATE_DAYS_CA);
    if (ca == NULL || X509_set_issuer_name(ca, X509_get_subject_name(ca)) != 1 ||
        !add_extension(ca, ca, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") ||
        !add_extension(ca, ca, NID_key_usage, "critical,keyCertSign,cRLSign") ||
        !add_extension(ca, ca, NID_subject_key_identifier, "hash") ||
        X509_sign(ca, key, EVP_sha256()) == 0)
        return openssl_error("make authority");
    TRY(write_key(key, folder, "ca-key.pem"));
    return write_certificate(ca, folder, "ca.pem");
}

/* "DNS:host-b,IP:10.0.0.2". Names are checked, because the text is OpenSSL's own little language.
 */
static struct err *subject_alt_name(const char *const *names, size_t name_count, char *out,
                                    size_t size)
{
    uint8_t address[16];
    size_t used = 0;

    for (size_t i = 0; i < name_count; i++) {
        const char *name = names[i];
        size_t len = strlen(name);
        bool is_address =
            inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1;

        if (!is_address &&
            (len == 0 || len > HOST_NAME_BYTES ||
             strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") !=
                 len))
            return err_new(ERR_INVALID, "host '%s': not a name or address", name);
        int added = snprintf(out + used, size - used, "%s%s:%s", i == 0 ? "" : ",",
                             is_address ? "IP" : "DNS", name);
        used += (size_t)added;
        if (used >= size)
            return err_new(ERR_INVALID, "host '%s': too many names", names[0]);
    }
    return NULL;
}

static struct err *read_authority(const char *folder, EVP_PKEY **out_key, X509 **out_ca)
{
    CLEANUP(cleanup_bio) BIO *ca_bio = NULL;
    CLEANUP(cleanup_bio) BIO *key_bio = NULL;

    TRY(read_pem(folder, "ca.pem", &ca_bio));
    TRY(read_pem(folder, "ca-key.pem", &key_bio));
    CLEANUP(cleanup_certificate) X509 *ca = PEM_read_bio_X509(ca_bio, NULL, NULL, NULL);
    CLEANUP(cleanup_key) EVP_PKEY *key = PEM_read_bio_PrivateKey(key_bio, NULL, NULL, NULL);
    if (ca == NULL || key == NULL)
        return openssl_error("read authority");
    *out_ca = TAKE_PTR(ca);
    *out_key = TAKE_PTR(key);
    return NULL;
}

struct err *certificate_issue(const char *ca_folder, const char *const *names, size_t name_count,
                              int days, const char *to_folder)
{
    CLEANUP(cleanup_key) EVP_PKEY *ca_key = NULL;
    CLEANUP(cleanup_certificate) X509 *ca = NULL;
    char alt_names[8192];

    if (name_count == 0 || name_count > CERTIFICATE_NAMES_MAX)
        return err_new(ERR_INVALID, "certificate for %zu names; 1 to %u fit", name_count,
                       CERTIFICATE_NAMES_MAX);
    TRY(subject_alt_name(names, name_count, alt_names, sizeof(alt_names)));
    TRY(read_authority(ca_folder, &ca_key, &ca));
    TRY(folder_create(to_folder, 0700));
    CLEANUP(cleanup_key) EVP_PKEY *key = EVP_EC_gen("P-256");
    if (key == NULL)
        return openssl_error("make key");
    CLEANUP(cleanup_certificate) X509 *host = certificate_new(key, names[0], days);
    if (host == NULL || X509_set_issuer_name(host, X509_get_subject_name(ca)) != 1 ||
        !add_extension(host, ca, NID_basic_constraints, "critical,CA:FALSE") ||
        !add_extension(host, ca, NID_key_usage, "critical,digitalSignature") ||
        !add_extension(host, ca, NID_ext_key_usage, "serverAuth,clientAuth") ||
        !add_extension(host, ca, NID_authority_key_identifier, "keyid") ||
        !add_extension(host, ca, NID_subject_alt_name, alt_names) ||
        X509_sign(host, ca_key, EVP_sha256()) == 0)
        return openssl_error("make certificate");
    TRY(write_key(key, to_folder, "host-key.pem"));
    TRY(write_certificate(host, to_folder, "host.pem"));
    return write_certificate(ca, to_folder, "ca.pem");
}
