/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control_client.h - a connection to a machine's process, as workers and tools use it.
 *
 * One call at a time: send the request, wait for the reply, which a machine gives within the
 * call's own limits (the timeout is for machines that hang). Thread: one at a time.
 * An error reply becomes an err of the same kind with the machine's message.
 */
#ifndef CONTROL_CONTROL_CLIENT_H
#define CONTROL_CONTROL_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "proto/control.pb-c.h"

struct control_client;

/* Connects to the machine's named socket and greets it. ERR_NOT_FOUND when no such machine runs. */
ERR_RESULT control_client_connect(const char *name, const char *program,
                                  struct control_client **out_client);
/* Takes over a connected socket (one end of a socketpair whose other end vm-run was given), also on
 * error. */
ERR_RESULT control_client_attach(int fd, const char *program, struct control_client **out_client);
void control_client_close(struct control_client *client);   /* accepts NULL */
int control_client_fd(const struct control_client *client); /* readable: reply or hang-up */

const char *control_client_machine(const struct control_client *client); /* its name, or "" */
uint32_t control_client_pid(const struct control_client *client);        /* of its process */

struct control_fds {
    int fds[8];
    size_t count;
};

/* The general call: request->id and fd_count are filled here. The reply is freed by the caller
 * with ferry__control_reply__free_unpacked. Received fds are the caller's; more than fit are an
 * error. send_fds may be NULL. */
ERR_RESULT control_client_call(struct control_client *client, Ferry__ControlRequest *request,
                               const int *send_fds, size_t send_fd_count,
                               struct control_fds *out_fds, Ferry__ControlReply **out_reply);

/* One function for each call of control.proto; see there for what it means. */
ERR_RESULT control_status(struct control_client *client, Ferry__ControlReply **out_reply);
ERR_RESULT control_describe(struct control_client *client, Ferry__ControlReply **out_reply);
ERR_RESULT control_pause(struct control_client *client, bool hold, uint64_t *out_paused_ns);
/* Pauses it, or holds it as it is if it is paused: then resuming it lets go of it only. */
ERR_RESULT control_hold(struct control_client *client, uint64_t *out_paused_ns,
                        bool *out_was_paused);
ERR_RESULT control_resume(struct control_client *client);
/* After a resume: CLOCK_MONOTONIC just before the guest was entered, by asking for the status until
 * a vCPU's thread has got there; 0: not within a second. */
ERR_RESULT control_wait_entered(struct control_client *client, uint64_t *out_entered_ns);
/* The machine makes `record` durable at the start of that file before it runs. */
ERR_RESULT control_resume_recorded(struct control_client *client, int record_fd,
                                   const char *record);
ERR_RESULT control_power_button(struct control_client *client);
ERR_RESULT control_reset(struct control_client *client);
ERR_RESULT control_quit(struct control_client *client, const char *reason);
ERR_RESULT control_console(struct control_client *client, int *out_fd);
ERR_RESULT control_harvest(struct control_client *client, uint64_t first_page, uint64_t page_count,
                           uint64_t *out_dirty_pages);
ERR_RESULT control_return_memory(struct control_client *client);
ERR_RESULT control_save_state(struct control_client *client, Ferry__ControlReply **out_reply);
ERR_RESULT control_mark_cut(struct control_client *client);
ERR_RESULT control_keep_tracking(struct control_client *client, const char *snapshot);
ERR_RESULT control_prepare_disks(struct control_client *client);
/* See ControlGrowDisk; gives the size that the disk has then. */
ERR_RESULT control_grow_disk(struct control_client *client, const char *disk, uint64_t bytes,
                             bool is_more, uint64_t *out_virtual_bytes);
/* A limit that is NULL stays as it is. */
ERR_RESULT control_limit_disk(struct control_client *client, const char *disk,
                              const uint64_t *requests_per_second,
                              const uint64_t *bytes_per_second);
ERR_RESULT control_begin_copy(struct control_client *client, const char *disk, const char *tracker);
ERR_RESULT control_swap_layers(struct control_client *client, const char *disk, const char *path);
ERR_RESULT control_freeze_disks(struct control_client *client, Ferry__ControlReply **out_reply);
ERR_RESULT control_hand_over(struct control_client *client, const char *target,
                             const uint8_t session[16]);
ERR_RESULT control_take_back(struct control_client *client);
ERR_RESULT control_configure(struct control_client *client, Ferry__MachineDescription *description,
                             bool take_identity, const int *tap_fds, size_t tap_fd_count);
ERR_RESULT control_load_state(struct control_client *client, Ferry__MachineState *state);
ERR_RESULT control_memory_source(struct control_client *client, uint64_t index_checksum,
                                 const int *fds, size_t fd_count);
ERR_RESULT control_check_disks(struct control_client *client);

#endif
