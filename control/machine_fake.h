/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine_fake.h - a machine without KVM that speaks the whole control protocol, for tests of
 * workers: memory that a thread keeps writing, dirty tracking, state, disks, hand-over, undo.
 *
 *     empty --configure--> incoming --load_state, resume--> running <--> paused --> handed over
 *
 * It runs on a thread of its own. Thread: one, that of the test.
 */
#ifndef CONTROL_MACHINE_FAKE_H
#define CONTROL_MACHINE_FAKE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "proto/control.pb-c.h"

struct machine_fake;
struct control_client;

struct machine_fake_config {
    const char *name; /* NULL: has no named socket */
    uint64_t memory_mib;
    uint64_t memory_below_4g_mib; /* 0: all of it; else memory has two regions */
    uint64_t filled_pages;        /* content from the start; the rest are holes */
    uint64_t working_set_pages;   /* written in turn, from page 0 */
    uint64_t pages_per_second;
    uint64_t seed;
    const char *disk_path; /* NULL: no disk; else a raw file that exists */
};

/* Running at once; config NULL: empty, as `vm-run --incoming` starts. */
ERR_RESULT machine_fake_start(const struct machine_fake_config *config,
                              struct machine_fake **out_machine);
/* Ends it as its death would: connections just close. Accepts NULL. */
void machine_fake_destroy(struct machine_fake *machine);

/* A new connection, as the process's --control-fd would be. */
ERR_RESULT machine_fake_connect(struct machine_fake *machine, const char *program,
                                struct control_client **out_client);
/* The same, as a bare descriptor for who attaches to it. */
ERR_RESULT machine_fake_connect_fd(struct machine_fake *machine, int *out_fd);

/* Serves a socket that somebody else connected: what --control-fd names. Takes it over. */
ERR_RESULT machine_fake_adopt(struct machine_fake *machine, int fd);

/* Until it quits, or, empty at the start, its builder hangs up; at most timeout_ms. False: it is
 * still there. */
bool machine_fake_wait_end(struct machine_fake *machine, int timeout_ms);

/* Writes to whoever connected to the console last, as far as that takes it. */
void machine_fake_say(struct machine_fake *machine, const char *text);

/* What happened inside; each waits for the machine's own thread. */
Ferry__ControlRunState machine_fake_run_state(struct machine_fake *machine);
bool machine_fake_has_quit(struct machine_fake *machine);
uint64_t machine_fake_steps(struct machine_fake *machine);
uint32_t machine_fake_borrowers(struct machine_fake *machine); /* connections that track changes */
/* Stops the guest for a moment and checks all of its memory against its state. */
ERR_RESULT machine_fake_check(struct machine_fake *machine);

#endif
