/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine.h - one virtual machine: its memory, vCPUs, devices and disks as a whole.
 *
 *     create -> boot | (load, disks opened at the first resume) -> resume -> pause -> ...
 *
 * Only a paused machine can be saved: machine_pause yields the struct paused_machine that the
 * functions below take, and machine_resume consumes it.
 * Thread: loop only, but for functions that say that the machine's worker may call them.
 */
#ifndef VMM_MACHINE_MACHINE_H
#define VMM_MACHINE_MACHINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "proto/control.pb-c.h"
#include "proto/machine.pb-c.h"

struct dirty_tracker;
struct event_loop;
struct guest_memory;
struct loop_job;
struct machine;
struct paused_machine;
struct section_list;

enum machine_event {
    MACHINE_EVENT_POWER_OFF, /* the guest switched itself off */
    MACHINE_EVENT_RESET,     /* the guest was reset; it runs again by itself */
    MACHINE_EVENT_FAILED,    /* machine_failure says why; the guest stands still */
};

/* Descriptors of taps, in the order of the networks that are given one. */
struct machine_taps {
    const int *fds;
    size_t count;
};

/* Builds KVM VM, memory, vCPUs and devices for a description; nothing runs, disks are not open.
 * For a machine that boots, description->cpuid is empty and made from config.cpu_model; else the
 * host must offer every bit (the error names leaf, register and bit). taps are consumed. */
ERR_RESULT machine_create(struct event_loop *loop, const Ferry__MachineDescription *description,
                          struct machine_taps taps,
                          void (*on_event)(void *context, enum machine_event event), void *context,
                          struct machine **out_machine);
void machine_destroy(struct machine *machine); /* stops everything; accepts NULL */

/* Opens the disks and loads kernel, initrd and command line; the machine is paused at its entry. */
ERR_RESULT machine_boot(struct machine *machine, struct paused_machine **out_paused);

/* Validates every section, then applies them all: on error nothing was applied unless the host
 * itself failed in the middle, and then the machine is only good to be destroyed. */
ERR_RESULT machine_load(struct machine *machine, const struct section_list *sections,
                        struct paused_machine **out_paused);

/* Hands what takes long to the machine's worker; see loop_worker.h. ERR_STATE: it was stopped. */
ERR_RESULT machine_do_later(struct machine *machine, struct loop_job *job);
/* Cancels what the worker has not begun and waits for the rest. */
void machine_stop_worker(struct machine *machine);

/* What is written and not durable goes out. Thread: loop, worker. */
ERR_RESULT machine_flush_disks(struct machine *machine);

/* vCPUs stand still, block I/O is drained and flushed, packets in flight are settled. The pause is
 * short if the disks were flushed just before. */
ERR_RESULT machine_pause(struct machine *machine, struct paused_machine **out_paused);
/* Opens (and locks) disks that are not open. On error the machine stays paused, *inout_paused
 * valid. */
ERR_RESULT machine_resume(struct paused_machine **inout_paused);
ERR_RESULT machine_save(struct paused_machine *paused, struct section_list *out_sections);
ERR_RESULT machine_reset(struct paused_machine *paused);

/* Opens (and locks) the disks that are not open: what is most likely to fail of a resume. */
ERR_RESULT machine_open_disks(struct paused_machine *paused);

/* Can every disk be opened here, apart from locks? Looks only. Thread: loop, worker. */
ERR_RESULT machine_check_disks(const struct machine *machine);

/* Why the guest waits for a disk: one line each, at most MACHINE_DISKS_MAX. */
#define MACHINE_PROBLEM_BYTES 512u
size_t machine_disk_problems(const struct machine *machine,
                             char out_problems[][MACHINE_PROBLEM_BYTES]);
/* Tries again now what waits. False when nothing does. */
bool machine_retry_disks(struct machine *machine);

/* Makes an overlay for each writable disk, for a freeze later; earlier ones are removed.
 * Thread: worker. */
ERR_RESULT machine_prepare_disks(struct machine *machine);
void machine_forget_prepared_disks(struct machine *machine); /* removes them */
/* Switches each disk to its overlay. On error, those switched before the one that failed stay
 * switched, which the guest does not notice. Free the result with its free_unpacked. */
ERR_RESULT machine_freeze_disks(struct paused_machine *paused,
                                Ferry__ControlFrozenDisks **out_disks);

/* A layer of a disk was merged with some below it; see disk_image_swap_layers. Thread: worker. */
ERR_RESULT machine_swap_layers(struct machine *machine, const char *disk_id, const char *path,
                               unsigned *out_gone);

/* What a tracker of a disk has noted becomes a copy's; see dirty_blocks_begin. Thread: worker. */
ERR_RESULT machine_begin_copy(struct machine *machine, const char *disk_id, const char *tracker);

/* Makes a disk `bytes` large, or larger by that much, and tells the guest. Trackers count all of it
 * as changed. After an error the guest runs on with the disk as large as it is then. */
struct machine_growth {
    const char *disk_id;
    uint64_t bytes;
    bool is_more;
};
ERR_RESULT machine_grow_disk(struct paused_machine *paused, struct machine_growth growth,
                             uint64_t *out_virtual_bytes);

/* Other limits of a disk, in effect at once and in the description; see disk_limits.h. */
ERR_RESULT machine_limit_disk(struct machine *machine, const Ferry__ControlLimitDisk *call);

/* Locks are given up, and taken again; see storage/disk_image.h. */
ERR_RESULT machine_hand_over_disks(struct paused_machine *paused);
ERR_RESULT machine_take_back_disks(struct paused_machine *paused);

ERR_RESULT machine_describe(const struct machine *machine,
                            Ferry__MachineDescription **out_description);
struct guest_memory *machine_memory(struct machine *machine);
struct dirty_tracker *machine_tracker(struct machine *machine);
ERR_RESULT machine_open_console(struct machine *machine, int *out_fd); /* a stream; the caller's */
/* False: nobody in the guest listens to it. */
bool machine_power_button(struct machine *machine);
/* It can not run on: stands still from here on, as failed. */
void machine_give_up(struct machine *machine, const char *reason);
/* CLOCK_MONOTONIC just before the first entry into the guest since the boot or load, 0 before it;
 * just after the last vCPU stopped for the latest pause; and just before the first entry since the
 * latest resume. */
uint64_t machine_first_run_ns(const struct machine *machine);
uint64_t machine_last_exit_ns(const struct machine *machine);
uint64_t machine_entered_ns(const struct machine *machine);
const char *machine_failure(const struct machine *machine); /* NULL: none */

#endif
