/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dialer.c - see dialer.h. Tested by: channel_tls_test.c, move_test.c.
 */
#include "migration/dialer.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/checked_math.h"
#include "base/cleanup.h"
#include "migration/channel_tls.h"
#include "migration/preamble.h"

#define PROGRAM "ferry 0.1"

const char *local_host_name(void)
{
    static _Thread_local char name[HOST_NAME_MAX + 1];

    if (gethostname(name, sizeof(name) - 1) != 0)
        (void)strcpy(name, "?");
    return name;
}

const char *local_program(void)
{
    return PROGRAM;
}

static struct err *tls_dial(struct dialer *dialer, const struct session_id *route,
                            struct channel **out_channel)
{
    struct dialer_tls *self = CONTAINER_OF(dialer, struct dialer_tls, base);
    CLEANUP(cleanup_fd) int fd = -1;
    uint8_t preamble[PREAMBLE_BYTES];

    TRY(host_address_connect(&self->address, dialer->timeouts->connect_ms, &fd));
    preamble_write(route, preamble);
    /* The buffer of a new socket takes these few bytes at once. */
    if (send(fd, preamble, sizeof(preamble), MSG_NOSIGNAL) != (ssize_t)sizeof(preamble))
        return err_errno(errno, "connect to '%s'", self->address.host);
    return channel_tls_connect(TAKE_FD(fd), self->address.host, self->identity, dialer->timeouts,
                               out_channel);
}

static const struct dialer_ops tls_dialer_ops = {
    .name = "tls",
    .dial = tls_dial,
};

void dialer_tls_init(struct dialer_tls *dialer, const struct host_address *address,
                     const struct tls_identity *identity, const struct timeouts *timeouts)
{
    dialer->base.ops = &tls_dialer_ops;
    dialer->base.timeouts = timeouts;
    dialer->address = *address;
    dialer->identity = identity;
}

struct err *dialer_hello(struct dialer *dialer, const struct session_id *route,
                         Ferry__MigrationPurpose purpose, struct session_id *session,
                         uint32_t channel_index, struct frame_stream **out_stream)
{
    CLEANUP(cleanup_frame_stream) struct frame_stream *stream = NULL;
    struct channel *channel = NULL;
    Ferry__MigrationHello hello = FERRY__MIGRATION_HELLO__INIT;
    Ferry__MigrationFrame frame;

    TRY(dialer->ops->dial(dialer, route, &channel));
    TRY(frame_stream_create(channel, &stream));
    hello.protocol = MIGRATION_PROTOCOL;
    hello.purpose = purpose;
    hello.session = session_id_message(session);
    hello.channel = channel_index;
    hello.program = (char *)local_program();
    hello.host = (char *)local_host_name();
    FRAME_BODY(&frame, HELLO, hello, &hello);
    TRY(frame_stream_send(stream, &frame, NULL, 0));
    TRY(channel_flush(frame_stream_channel(stream)));
    *out_stream = TAKE_PTR(stream);
    return NULL;
}
