/* SPDX-License-Identifier: Apache-2.0 */
/* Real certificates over real sockets of this host. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/limits.h"
#include "base/thread.h"
#include "base/unit_test.h"
#include "migration/certificate_authority.h"
#include "migration/channel_tls.h"
#include "migration/host_address.h"
#include "migration/tls_identity.h"

static const struct timeouts timeouts = {.connect_ms = 3000, .silence_ms = 3000};

static char folder[64];

/* Client and server, each in its thread, name their files. */
static const char *path_of(const char *below)
{
    static _Thread_local char paths[4][128];
    static _Thread_local unsigned next;
    char *path = paths[next++ % 4];

    (void)snprintf(path, sizeof(paths[0]), "%s/%s", folder, below);
    return path;
}

static void issue(const char *ca, const char *name, int days, const char *to)
{
    const char *names[] = {name, "127.0.0.1"};

    ASSERT_OK(certificate_issue(path_of(ca), names, strcmp(name, "stranger") == 0 ? 1 : 2, days,
                                path_of(to)));
}

static int set_up(void **state)
{
    (void)state;
    (void)strcpy(folder, "/tmp/channel_tls.XXXXXX");
    assert_non_null(mkdtemp(folder));
    ASSERT_OK(certificate_authority_create(path_of("ca"), "host-a"));
    ASSERT_OK(certificate_authority_create(path_of("other-ca"), "host-c"));
    issue("ca", "host-a", 100, "a");
    issue("ca", "host-b", 100, "b");
    issue("ca", "stranger", 100, "stranger");
    issue("ca", "host-b", -1, "expired");
    issue("other-ca", "host-b", 100, "foreign");
    return 0;
}

static int tear_down(void **state)
{
    char command[128];

    (void)state;
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    return system(command);
}

/* The side that accepts, on its own thread. */
struct server {
    const char *certificates;
    int fd;
    struct channel *channel;
    struct err *err;
};

static void server_main(void *argument)
{
    struct server *server = argument;
    struct tls_identity *identity = NULL;
    int fd = accept(server->fd, NULL, NULL);

    ASSERT_OK(tls_identity_load(path_of(server->certificates), &identity));
    server->err = channel_tls_accept(fd, "127.0.0.1", identity, &timeouts, &server->channel);
    tls_identity_destroy(identity);
}

/* Both ends of a connection, or what either side says is wrong with it. */
struct outcome {
    struct channel *client;
    struct channel *server;
    struct err *client_err;
    struct err *server_err;
};

static struct outcome connect_hosts(const char *client, const char *server_certificates)
{
    struct server server = {.certificates = server_certificates};
    struct host_address address = {.host = "127.0.0.1"};
    struct tls_identity *identity = NULL;
    struct thread *thread = NULL;
    struct outcome outcome = {0};
    int fd = -1;

    ASSERT_OK(host_address_listen(&address, &server.fd, &address.port));
    ASSERT_OK(thread_create(ROLE_TEST, 0, server_main, &server, &thread));
    ASSERT_OK(host_address_connect(&address, 1000, &fd));
    ASSERT_OK(tls_identity_load(path_of(client), &identity));
    outcome.client_err = channel_tls_connect(fd, "127.0.0.1", identity, &timeouts, &outcome.client);
    thread_join(thread);
    outcome.server = server.channel;
    outcome.server_err = server.err;
    /* TLS 1.3 tells a client that it was refused when it first reads. */
    if (outcome.client_err == NULL && outcome.server_err != NULL) {
        uint8_t byte;
        size_t len;
        outcome.client_err = channel_receive(outcome.client, &byte, 1, 1, &len);
    }
    tls_identity_destroy(identity);
    close(server.fd);
    return outcome;
}

static void close_hosts(struct outcome *outcome)
{
    channel_destroy(outcome->client);
    channel_destroy(outcome->server);
    err_free(outcome->client_err);
    err_free(outcome->server_err);
}

static void assert_says(const struct err *err, const char *text)
{
    assert_non_null(err);
    if (strstr(err_message(err), text) == NULL)
        fail_msg("'%s' does not say '%s'", err_message(err), text);
}

TEST(bytes_arrive_and_each_side_knows_the_other)
{
    struct outcome hosts = connect_hosts("a", "b");
    struct iovec parts[2] = {{.iov_base = "mach", .iov_len = 4}, {.iov_base = "ine", .iov_len = 3}};
    char text[8] = "";
    size_t len = 0;

    ASSERT_OK(hosts.client_err);
    ASSERT_OK(hosts.server_err);
    ASSERT_OK(channel_send(hosts.client, parts, 2));
    ASSERT_OK(channel_flush(hosts.client));
    ASSERT_OK(channel_receive(hosts.server, text, 7, 7, &len));

    assert_string_equal(text, "machine");
    assert_string_equal(hosts.server->peer, "host-a");
    close_hosts(&hosts);
}

static void send_main(void *argument)
{
    struct channel *channel = argument;
    static uint8_t data[1u << 20];
    struct iovec part = {.iov_base = data, .iov_len = sizeof(data)};

    for (int i = 0; i < 64; i++)
        err_free(channel_send(channel, &part, 1));
    err_free(channel_flush(channel));
}

TEST(much_more_than_any_buffer_arrives)
{
    struct outcome hosts = connect_hosts("a", "b");
    struct thread *thread = NULL;
    uint8_t *data = malloc(MIB);
    size_t len = 0;

    assert_non_null(data);
    ASSERT_OK(hosts.client_err);
    ASSERT_OK(thread_create(ROLE_TEST, 0, send_main, hosts.client, &thread));
    for (int i = 0; i < 64; i++)
        ASSERT_OK(channel_receive(hosts.server, data, MIB, MIB, &len));
    thread_join(thread);

    free(data);
    close_hosts(&hosts);
}

TEST(an_interrupted_wait_ends)
{
    struct outcome hosts = connect_hosts("a", "b");
    uint8_t byte;
    size_t len;

    channel_interrupt(hosts.client);

    assert_fails(channel_receive(hosts.client, &byte, 1, 1, &len), ERR_CANCELLED);
    close_hosts(&hosts);
}

TEST(a_host_of_another_authority_is_refused)
{
    struct outcome hosts = connect_hosts("a", "foreign");

    assert_says(hosts.client_err, "signed by another authority");
    assert_says(hosts.server_err, "does not believe our certificate");
    close_hosts(&hosts);
}

TEST(a_client_of_another_authority_is_refused)
{
    struct outcome hosts = connect_hosts("foreign", "b");

    assert_non_null(hosts.client_err);
    assert_non_null(hosts.server_err);
    close_hosts(&hosts);
}

TEST(an_expired_certificate_is_refused)
{
    struct outcome hosts = connect_hosts("a", "expired");

    assert_says(hosts.client_err, "has expired");
    close_hosts(&hosts);
}

TEST(an_expired_client_is_told)
{
    struct outcome hosts = connect_hosts("expired", "b");

    assert_says(hosts.server_err, "has expired");
    assert_says(hosts.client_err, "it has expired");
    close_hosts(&hosts);
}

TEST(a_host_under_another_name_is_refused)
{
    struct outcome hosts = connect_hosts("a", "stranger");

    assert_says(hosts.client_err, "is for stranger");
    close_hosts(&hosts);
}

/* A client that knows the authority but shows no certificate of its own. */
static void bare_client_main(void *argument)
{
    const struct host_address *address = argument;
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    SSL *ssl = SSL_new(context);
    int fd = -1;

    ASSERT_OK(host_address_connect(address, 1000, &fd));
    assert_int_equal(SSL_set_fd(ssl, fd), 1);
    for (int i = 0; i < 1000 && SSL_connect(ssl) != 1; i++)
        (void)poll(NULL, 0, 1);
    SSL_free(ssl);
    SSL_CTX_free(context);
    close(fd);
}

TEST(a_client_without_a_certificate_is_refused)
{
    struct server server = {.certificates = "b"};
    struct host_address address = {.host = "127.0.0.1"};
    struct thread *thread = NULL;

    ASSERT_OK(host_address_listen(&address, &server.fd, &address.port));
    ASSERT_OK(thread_create(ROLE_TEST, 0, bare_client_main, &address, &thread));
    server_main(&server);
    thread_join(thread);

    assert_says(server.err, "showed no certificate");
    err_free(server.err);
    close(server.fd);
}

TEST(missing_files_are_named)
{
    struct tls_identity *identity = NULL;

    struct err *err = tls_identity_load("/nonexistent", &identity);

    assert_says(err, "/nonexistent/ca.pem");
    assert_says(err, "vm-certs init");
    err_free(err);
}

TEST(an_authority_is_not_replaced)
{
    assert_fails(certificate_authority_create(path_of("ca"), "again"), ERR_STATE);
}

TEST(names_that_are_no_names_are_refused)
{
    const char *bad[] = {"host,DNS:other"};

    assert_fails(certificate_issue(path_of("ca"), bad, 1, 10, path_of("bad")), ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_arrive_and_each_side_knows_the_other),
        cmocka_unit_test(much_more_than_any_buffer_arrives),
        cmocka_unit_test(an_interrupted_wait_ends),
        cmocka_unit_test(a_host_of_another_authority_is_refused),
        cmocka_unit_test(a_client_of_another_authority_is_refused),
        cmocka_unit_test(an_expired_certificate_is_refused),
        cmocka_unit_test(an_expired_client_is_told),
        cmocka_unit_test(a_host_under_another_name_is_refused),
        cmocka_unit_test(a_client_without_a_certificate_is_refused),
        cmocka_unit_test(missing_files_are_named),
        cmocka_unit_test(an_authority_is_not_replaced),
        cmocka_unit_test(names_that_are_no_names_are_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
