/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c - vm-receive: takes in machines that other hosts send. Tested by: tests/system.
 */
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>

#include "base/checked_math.h"
#include "base/event_loop.h"
#include "base/log.h"
#include "base/thread.h"
#include "migration/receive_server.h"
#include "tools/program.h"

struct receive_options {
    const char *listen;
    const char *certs;
    bool once;
};

static const struct option_row rows[] = {
    OPTION_TEXT("listen", 'l', struct receive_options, listen, "ADDRESS:PORT", "[::]:7420",
                "where to listen; port 0 lets the kernel choose"),
    OPTION_TEXT("certs", 'c', struct receive_options, certs, "FOLDER", NULL,
                "where ca.pem, host.pem and host-key.pem are; without it, in the configuration"),
    OPTION_FLAG("once", 0, struct receive_options, once, "end after the first machine has arrived"),
};

static const struct option_table table = {
    .program = "vm-receive",
    .arguments = "",
    .summary = "Takes in running machines that 'vm-migrate' sends from other hosts.",
    .rows = rows,
    .row_count = ARRAY_COUNT(rows),
};

static void stop(void *context, uint32_t events)
{
    (void)events;
    event_loop_stop(context);
}

static struct err *run(const struct receive_options *options)
{
    struct receive_server_config config = {.certificates = options->certs, .once = options->once};
    struct event_loop *loop = NULL;
    struct event_source *signals = NULL;
    struct receive_server *server = NULL;
    sigset_t ends;

    TRY(host_address_parse(options->listen, &config.address));
    sigemptyset(&ends);
    sigaddset(&ends, SIGINT);
    sigaddset(&ends, SIGTERM);
    (void)sigprocmask(SIG_BLOCK, &ends, NULL);
    TRY(event_loop_create(&loop));
    struct err *err =
        event_loop_watch(loop, signalfd(-1, &ends, SFD_CLOEXEC), EPOLLIN, stop, loop, &signals);
    if (err == NULL)
        err = receive_server_create(loop, &config, &server);
    if (err == NULL) {
        log_info("listening", "address=%s port=%u", config.address.host,
                 receive_server_port(server));
        err = event_loop_run(loop);
    }
    receive_server_destroy(server);
    event_loop_destroy(loop);
    return err;
}

int main(int argc, char **argv)
{
    struct receive_options options;
    struct option_result operands;

    program_begin(&table, argc, argv, &options, &operands);
    thread_become(ROLE_LOOP);
    return program_end(run(&options));
}
