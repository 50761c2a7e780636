/* SPDX-License-Identifier: Apache-2.0 */
/*
 * run_options.h - vm-run's command line, and the machine that it describes.
 * Thread: loop only.
 */
#ifndef TOOLS_VM_RUN_RUN_OPTIONS_H
#define TOOLS_VM_RUN_RUN_OPTIONS_H

#include "base/err.h"
#include "base/limits.h"
#include "base/option_table.h"
#include "proto/machine.pb-c.h"

struct run_options {
    const char *name;
    const char *uuid;
    uint64_t memory_mib;
    uint64_t memory_below_4g_mib; /* 0: as much as fits */
    uint64_t vcpus;
    const char *cpu_model;
    const char *kernel;
    const char *initrd;
    const char *append;
    struct option_list disks;
    struct option_list image_folders;
    struct option_list nets;
    bool no_rng;
    const char *console;
    bool is_incoming;
    uint64_t control_fd; /* 0: none */
    bool daemonize;
};

extern const struct option_table run_option_table;

/* The machine; free it with run_description_finish. */
struct run_description {
    Ferry__MachineDescription *description; /* owned */
    int tap_fds[MACHINE_NETS_MAX];          /* of networks given by descriptor; consumed */
    size_t tap_fd_count;
};

ERR_RESULT run_description_init(const struct run_options *options,
                                struct run_description *out_machine);
void run_description_finish(struct run_description *machine);

#endif
