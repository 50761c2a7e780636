/* SPDX-License-Identifier: Apache-2.0 */
/*
 * openssl.h - OpenSSL's headers, which have a type of the name of one of our error kinds.
 */
#ifndef MIGRATION_OPENSSL_H
#define MIGRATION_OPENSSL_H

#include "base/err.h"

#define ERR_STATE OPENSSL_ERR_STATE
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#undef ERR_STATE

#endif
