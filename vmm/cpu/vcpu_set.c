/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vcpu_set.c - see vcpu_set.h.
 *
 * The gate: `wanted` says what all vCPUs are to do, `standing` how many stand. A pause sets
 * immediate_exit in each vCPU and then sends its thread a signal: a thread that is in the guest is
 * thrown out by the signal, one that is about to enter is turned back by the flag. On its way to
 * standing, a vCPU enters with the flag set until KVM answers EINTR, which completes the port or
 * memory access that the last exit began; only then is its state whole.
 *
 * Tested by: tests/system, and tests/kernel for what it expects of KVM.
 */
#include "vmm/cpu/vcpu_set.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/lock.h"
#include "base/thread.h"
#include "vmm/kvm/kvm_vcpu.h"

#define KICK_SIGNAL SIGUSR1

enum gate { GATE_STAND, GATE_RUN, GATE_QUIT };

struct vcpu {
    struct vcpu_set *set;
    unsigned index;
    struct kvm_vcpu *kvm;  /* owned */
    struct thread *thread; /* owned; NULL until the first resume */
};

struct vcpu_set {
    struct vcpu_set_config config;
    struct vcpu *vcpus; /* owned */
    struct lock lock;
    struct lock_condition moved; /* wanted or standing changed */
    enum gate wanted GUARDED_BY(&lock);
    unsigned standing GUARDED_BY(&lock);
    uint64_t first_run_ns GUARDED_BY(&lock);
    uint64_t last_exit_ns GUARDED_BY(&lock);
    uint64_t entered_ns GUARDED_BY(&lock);
};

static void kick_handler(int signal)
{
    (void)signal; /* its arrival is the message */
}

/* Stands until the guest is to run; false: the thread is to end. */
static bool pass_gate(struct vcpu *vcpu)
{
    struct vcpu_set *set = vcpu->set;

    lock_acquire(&set->lock);
    set->standing++;
    set->last_exit_ns = clock_monotonic_ns();
    lock_condition_broadcast(&set->moved);
    while (set->wanted == GATE_STAND)
        lock_condition_wait(&set->moved, &set->lock);
    bool is_running = set->wanted == GATE_RUN;
    if (is_running) {
        set->standing--;
        kvm_vcpu_set_immediate_exit(vcpu->kvm, false);
        if (set->entered_ns == 0)
            set->entered_ns = clock_monotonic_ns();
        if (set->first_run_ns == 0)
            set->first_run_ns = set->entered_ns;
    }
    lock_release(&set->lock);
    return is_running;
}

/* After it stopped by itself: until everybody is told to stand. */
static void await_pause(struct vcpu_set *set)
{
    lock_acquire(&set->lock);
    while (set->wanted == GATE_RUN)
        lock_condition_wait(&set->moved, &set->lock);
    lock_release(&set->lock);
}

static void report_stop(struct vcpu *vcpu, enum vcpu_verdict verdict, const char *reason)
{
    char text[VCPU_REASON_BYTES + 32];

    (void)snprintf(text, sizeof(text), "vCPU %u: %s", vcpu->index, reason);
    vcpu->set->config.on_stop(vcpu->set->config.context, verdict, text);
    await_pause(vcpu->set);
}

/* Runs the guest until KVM says EINTR, which it does when the set is told to stand. */
static void run_guest(struct vcpu *vcpu)
{
    char reason[VCPU_REASON_BYTES] = "";

    for (;;) {
        int error = kvm_vcpu_run(vcpu->kvm);
        if (error == EINTR)
            return;
        if (error == EAGAIN)
            continue; /* a processor that waits for INIT was woken */
        if (error != 0) {
            (void)snprintf(reason, sizeof(reason), "KVM could not run the guest: error %d", error);
            report_stop(vcpu, VCPU_FAILED, reason);
            return;
        }
        enum vcpu_verdict verdict =
            vcpu_exit_handle(&vcpu->set->config.buses, kvm_vcpu_exit(vcpu->kvm), reason);
        if (verdict != VCPU_RUN_ON) {
            report_stop(vcpu, verdict, reason);
            return;
        }
    }
}

static bool is_to_stand(struct vcpu_set *set)
{
    lock_acquire(&set->lock);
    bool is_standing = set->wanted != GATE_RUN;
    lock_release(&set->lock);
    return is_standing;
}

static void vcpu_main(void *argument)
{
    struct vcpu *vcpu = argument;
    sigset_t kick;

    (void)sigemptyset(&kick);
    (void)sigaddset(&kick, KICK_SIGNAL);
    (void)pthread_sigmask(SIG_UNBLOCK, &kick, NULL);

    while (pass_gate(vcpu)) {
        do {
            run_guest(vcpu); /* EINTR also comes of signals that are not ours */
        } while (!is_to_stand(vcpu->set));
    }
}

static struct err *create_vcpus(struct kvm_vm *vm, struct vcpu_set *set)
{
    set->vcpus = calloc(set->config.count, sizeof(*set->vcpus));
    if (set->vcpus == NULL)
        return err_new(ERR_NO_MEMORY, "%u vCPUs", set->config.count);
    for (unsigned i = 0; i < set->config.count; i++) {
        set->vcpus[i].set = set;
        set->vcpus[i].index = i;
        TRY(kvm_vcpu_create(vm, i, &set->vcpus[i].kvm));
    }

    struct sigaction action = {.sa_handler = kick_handler};
    (void)sigemptyset(&action.sa_mask);
    if (sigaction(KICK_SIGNAL, &action, NULL) < 0)
        return err_errno(errno, "install the vCPUs' signal");
    return NULL;
}

struct err *vcpu_set_create(struct kvm_vm *vm, const struct vcpu_set_config *config,
                            struct vcpu_set **out_set) LOCK_UNCHECKED
{
    struct vcpu_set *set = calloc(1, sizeof(*set));
    if (set == NULL)
        return err_new(ERR_NO_MEMORY, "vCPUs");
    set->config = *config;
    set->wanted = GATE_STAND;
    lock_init(&set->lock, LOCK_VCPU_GATE);
    lock_condition_init(&set->moved);

    struct err *err = create_vcpus(vm, set);
    if (err != NULL) {
        vcpu_set_destroy(set);
        return err;
    }

    *out_set = set;
    return NULL;
}

static void order(struct vcpu_set *set, enum gate wanted)
{
    lock_acquire(&set->lock);
    set->wanted = wanted;
    if (wanted == GATE_RUN)
        set->entered_ns = 0;
    if (wanted != GATE_RUN) {
        for (unsigned i = 0; i < set->config.count; i++)
            kvm_vcpu_set_immediate_exit(set->vcpus[i].kvm, true);
    }
    lock_condition_broadcast(&set->moved);
    lock_release(&set->lock);

    for (unsigned i = 0; wanted != GATE_RUN && i < set->config.count; i++) {
        if (set->vcpus[i].thread != NULL)
            thread_kick(set->vcpus[i].thread, KICK_SIGNAL);
    }
}

void vcpu_set_destroy(struct vcpu_set *set)
{
    if (set == NULL)
        return;
    for (unsigned i = 0; set->vcpus != NULL && i < set->config.count; i++) {
        if (i == 0 && set->vcpus[0].thread != NULL)
            order(set, GATE_QUIT);
        thread_join(set->vcpus[i].thread);
    }
    for (unsigned i = 0; set->vcpus != NULL && i < set->config.count; i++)
        kvm_vcpu_destroy(set->vcpus[i].kvm);
    lock_condition_finish(&set->moved);
    lock_finish(&set->lock);
    free(set->vcpus);
    free(set);
}

void vcpu_set_pause(struct vcpu_set *set)
{
    unsigned threads = 0;
    while (threads < set->config.count && set->vcpus[threads].thread != NULL)
        threads++;

    order(set, GATE_STAND);
    lock_acquire(&set->lock);
    while (set->standing < threads)
        lock_condition_wait(&set->moved, &set->lock);
    lock_release(&set->lock);
}

struct err *vcpu_set_resume(struct vcpu_set *set)
{
    for (unsigned i = 0; i < set->config.count; i++) {
        if (set->vcpus[i].thread == NULL)
            TRY(thread_create(ROLE_VCPU, i, vcpu_main, &set->vcpus[i], &set->vcpus[i].thread));
        kvm_vcpu_tell_paused(set->vcpus[i].kvm);
    }
    order(set, GATE_RUN);
    return NULL;
}

unsigned vcpu_set_count(const struct vcpu_set *set)
{
    return set->config.count;
}

struct kvm_vcpu *vcpu_set_kvm(struct vcpu_set *set, unsigned index)
{
    return set->vcpus[index].kvm;
}

uint64_t vcpu_set_first_run_ns(struct vcpu_set *set)
{
    lock_acquire(&set->lock);
    uint64_t ns = set->first_run_ns;
    lock_release(&set->lock);
    return ns;
}

void vcpu_set_forget_first_run(struct vcpu_set *set)
{
    lock_acquire(&set->lock);
    set->first_run_ns = 0;
    lock_release(&set->lock);
}

uint64_t vcpu_set_last_exit_ns(struct vcpu_set *set)
{
    lock_acquire(&set->lock);
    uint64_t ns = set->last_exit_ns;
    lock_release(&set->lock);
    return ns;
}

uint64_t vcpu_set_entered_ns(struct vcpu_set *set)
{
    lock_acquire(&set->lock);
    uint64_t ns = set->entered_ns;
    lock_release(&set->lock);
    return ns;
}
