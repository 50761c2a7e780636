/* SPDX-License-Identifier: Apache-2.0 */
/*
 * receive_server.c - see receive_server.h. Tested by: tests/system.
 *
 *     accept --> greeting: 24 bytes --route of zeros--> fork a worker, which has the connection
 *                                   --route of a worker--> pass the descriptor to it
 *                                   --anything else, or 10 s--> close
 */
#include "migration/receive_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/event_loop.h"
#include "base/limits.h"
#include "base/log.h"
#include "migration/preamble.h"
#include "migration/receive_worker.h"
#include "migration/timeouts.h"
#include "migration/tls_identity.h"

struct greeting {
    struct receive_server *server;
    struct event_source *watch; /* owned */
    struct event_source *timer; /* owned */
    int fd;                     /* owned; -1: this place is free */
    char address[INET6_ADDRSTRLEN];
    uint8_t bytes[PREAMBLE_BYTES];
    size_t len;
};

struct session_worker {
    struct receive_server *server;
    struct event_source *watch; /* owned */
    pid_t pid;                  /* 0: this place is free */
    int pid_fd;                 /* owned; readable once the worker has ended */
    int pass_fd;                /* owned */
    struct session_id route;
};

struct receive_server {
    struct event_loop *loop;
    struct receive_server_config config;
    struct event_source *watch; /* owned */
    int fd;                     /* owned */
    uint16_t port;
    struct greeting greetings[MIGRATION_GREETING_MAX];
    struct session_worker workers[MIGRATION_SESSIONS_MAX];
};

static void greeting_close(struct greeting *greeting)
{
    event_source_remove(TAKE_PTR(greeting->watch));
    event_source_remove(TAKE_PTR(greeting->timer));
    if (greeting->fd >= 0)
        close(TAKE_FD(greeting->fd));
}

static void worker_ended(void *context, uint32_t events)
{
    struct session_worker *worker = context;
    struct receive_server *server = worker->server;
    int status = 0;

    (void)events;
    if (waitpid(worker->pid, &status, WNOHANG) != worker->pid)
        return;
    if (!WIFEXITED(status))
        log_error("session crashed", "signal=%d", WTERMSIG(status));
    event_source_remove(TAKE_PTR(worker->watch));
    close(TAKE_FD(worker->pid_fd));
    close(TAKE_FD(worker->pass_fd));
    worker->pid = 0;
    if (server->config.once && WIFEXITED(status) && WEXITSTATUS(status) == RECEIVE_WORKER_MOVED)
        event_loop_stop(server->loop);
}

/* The child's side of the fork; does not return. Descriptors of other connections are not its
 * business: a peer must see its own connection close when its own worker ends. */
static void worker_main(struct receive_server *server, const struct receive_worker_config *config)
{
    close(server->fd);
    for (size_t i = 0; i < MIGRATION_GREETING_MAX; i++)
        if (server->greetings[i].fd >= 0 && server->greetings[i].fd != config->connection_fd)
            close(server->greetings[i].fd);
    for (size_t i = 0; i < MIGRATION_SESSIONS_MAX; i++) {
        if (server->workers[i].pid == 0)
            continue;
        close(server->workers[i].pid_fd);
        close(server->workers[i].pass_fd);
    }
    /* Ctrl-C on the terminal is for the listener; a session ends with its connection. */
    (void)signal(SIGINT, SIG_IGN);
    (void)signal(SIGTERM, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    _exit((int)receive_worker_run(config));
}

static struct session_worker *free_worker(struct receive_server *server)
{
    for (size_t i = 0; i < MIGRATION_SESSIONS_MAX; i++)
        if (server->workers[i].pid == 0)
            return &server->workers[i];
    return NULL;
}

static struct err *start_worker(struct receive_server *server, const struct greeting *greeting)
{
    struct session_worker *worker = free_worker(server);
    struct receive_worker_config config = {
        .certificates = server->config.certificates,
        .address = greeting->address,
        .connection_fd = greeting->fd,
    };
    int ends[2];

    if (worker == NULL)
        return err_new(ERR_DENIED, "%u sessions are under way already", MIGRATION_SESSIONS_MAX);
    TRY(session_id_create(&worker->route));
    config.route = worker->route;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
        return err_errno(errno, "start a session");
    CLEANUP(cleanup_fd) int ours = ends[0];
    CLEANUP(cleanup_fd) int theirs = ends[1];
    config.pass_fd = theirs;
    pid_t pid = fork();
    if (pid < 0)
        return err_errno(errno, "start a session");
    if (pid == 0) {
        close(ours);
        worker_main(server, &config);
    }
    worker->server = server;
    worker->pid = pid;
    worker->pass_fd = TAKE_FD(ours);
    worker->pid_fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (worker->pid_fd < 0)
        return err_errno(errno, "watch a session");
    return event_loop_watch(server->loop, worker->pid_fd, EPOLLIN, worker_ended, worker,
                            &worker->watch);
}

static struct err *pass_connection(struct receive_server *server, const struct greeting *greeting,
                                   const struct session_id *route)
{
    char byte = 0;
    struct iovec part = {.iov_base = &byte, .iov_len = 1};
    union {
        struct cmsghdr header; /* for its alignment */
        char space[CMSG_SPACE(sizeof(int))];
    } control = {.space = {0}};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof(control)};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);

    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &greeting->fd, sizeof(int));
    for (size_t i = 0; i < MIGRATION_SESSIONS_MAX; i++) {
        const struct session_worker *worker = &server->workers[i];
        if (worker->pid == 0 || !session_id_equal(&worker->route, route))
            continue;
        if (sendmsg(worker->pass_fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) != 1)
            return err_errno(errno, "pass a data connection to its session");
        return NULL;
    }
    return err_new(ERR_NOT_FOUND, "a data connection of a session that is not here");
}

static struct err *dispatch(struct receive_server *server, const struct greeting *greeting)
{
    struct session_id route;

    if (!preamble_read(greeting->bytes, &route))
        return err_new(ERR_INVALID, "this is not a migration");
    if (session_id_equal(&route, &route_new_session))
        return start_worker(server, greeting);
    return pass_connection(server, greeting, &route);
}

static void greeting_ready(void *context, uint32_t events)
{
    struct greeting *greeting = context;
    ssize_t got = recv(greeting->fd, greeting->bytes + greeting->len,
                       PREAMBLE_BYTES - greeting->len, MSG_DONTWAIT);

    (void)events;
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got > 0)
        greeting->len += (size_t)got;
    if (got > 0 && greeting->len < PREAMBLE_BYTES)
        return;
    if (got > 0) {
        struct err *err = dispatch(greeting->server, greeting);
        if (err != NULL)
            log_err(LOG_WARNING, "connection dropped",
                    err_wrap(err, "connection from %s", greeting->address));
    }
    greeting_close(greeting);
}

static void greeting_late(void *context)
{
    greeting_close(context);
}

static void note_address(struct greeting *greeting, const struct sockaddr_storage *address)
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;
    const void *bytes =
        address->ss_family == AF_INET ? (const void *)&v4->sin_addr : (const void *)&v6->sin6_addr;

    if (inet_ntop(address->ss_family, bytes, greeting->address, sizeof(greeting->address)) == NULL)
        greeting->address[0] = '\0';
}

static struct err *greeting_start(struct greeting *greeting)
{
    struct event_loop *loop = greeting->server->loop;
    const int on = 1;

    (void)setsockopt(greeting->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    TRY(event_loop_watch(loop, greeting->fd, EPOLLIN, greeting_ready, greeting, &greeting->watch));
    TRY(event_loop_timer(loop, greeting_late, greeting, &greeting->timer));
    event_timer_arm(greeting->timer,
                    clock_monotonic_ns() + (uint64_t)timeouts_default.hello_ms * NS_PER_MS);
    return NULL;
}

static void server_ready(void *context, uint32_t events)
{
    struct receive_server *server = context;
    struct sockaddr_storage address = {0};
    socklen_t len = sizeof(address);
    CLEANUP(cleanup_fd)
    int fd = accept4(server->fd, (struct sockaddr *)&address, &len, SOCK_CLOEXEC);

    (void)events;
    if (fd < 0)
        return;
    for (size_t i = 0; i < MIGRATION_GREETING_MAX; i++) {
        struct greeting *greeting = &server->greetings[i];
        if (greeting->fd >= 0)
            continue;
        *greeting = (struct greeting){.server = server, .fd = TAKE_FD(fd)};
        note_address(greeting, &address);
        struct err *err = greeting_start(greeting);
        if (err != NULL) {
            log_err(LOG_WARNING, "connection dropped", err);
            greeting_close(greeting);
        }
        return;
    }
    log_warning("connection dropped", "cause=\"too many that say nothing\"");
}

struct err *receive_server_create(struct event_loop *loop,
                                  const struct receive_server_config *config,
                                  struct receive_server **out_server)
{
    struct tls_identity *identity = NULL;
    struct receive_server *server = calloc(1, sizeof(*server));

    if (server == NULL)
        return err_new(ERR_NO_MEMORY, "receive server");
    server->loop = loop;
    server->config = *config;
    server->fd = -1;
    for (size_t i = 0; i < MIGRATION_GREETING_MAX; i++)
        server->greetings[i].fd = -1;
    struct err *err = tls_identity_load(config->certificates, &identity);
    tls_identity_destroy(identity);
    if (err == NULL)
        err = host_address_listen(&config->address, &server->fd, &server->port);
    if (err == NULL)
        err = event_loop_watch(loop, server->fd, EPOLLIN, server_ready, server, &server->watch);
    if (err != NULL) {
        receive_server_destroy(server);
        return err;
    }
    *out_server = server;
    return NULL;
}

void receive_server_destroy(struct receive_server *server)
{
    if (server == NULL)
        return;
    event_source_remove(server->watch);
    if (server->fd >= 0)
        close(server->fd);
    for (size_t i = 0; i < MIGRATION_GREETING_MAX; i++)
        greeting_close(&server->greetings[i]);
    for (size_t i = 0; i < MIGRATION_SESSIONS_MAX; i++) {
        if (server->workers[i].pid == 0)
            continue;
        event_source_remove(server->workers[i].watch);
        close(server->workers[i].pid_fd);
        close(server->workers[i].pass_fd);
    }
    free(server);
}

uint16_t receive_server_port(const struct receive_server *server)
{
    return server->port;
}
