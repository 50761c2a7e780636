/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvm_dirty_log.c - see kvm_dirty_log.h.
 * Tested by: tests/kernel/kvm_behaviour_test.c.
 */
#include "vmm/kvm/kvm_dirty_log.h"

#include "base/checked_math.h"
#include "vmm/kvm/kvm_vm.h"

static struct err *set_all(struct kvm_dirty_log_reader *reader, bool is_on)
{
    for (uint32_t slot = 0; slot < reader->slot_count; slot++)
        TRY(kvm_vm_set_logging(reader->vm, slot, is_on));
    return NULL;
}

static struct err *enable(struct dirty_log *log)
{
    return set_all(CONTAINER_OF(log, struct kvm_dirty_log_reader, base), true);
}

static struct err *disable(struct dirty_log *log)
{
    return set_all(CONTAINER_OF(log, struct kvm_dirty_log_reader, base), false);
}

static struct err *get(struct dirty_log *log, size_t region, uint64_t *out_words)
{
    struct kvm_dirty_log_reader *reader = CONTAINER_OF(log, struct kvm_dirty_log_reader, base);

    return kvm_vm_get_log(reader->vm, (uint32_t)region, out_words);
}

static struct err *clear(struct dirty_log *log, size_t region, uint64_t first, uint64_t count,
                         const uint64_t *words)
{
    struct kvm_dirty_log_reader *reader = CONTAINER_OF(log, struct kvm_dirty_log_reader, base);

    return kvm_vm_clear_log(reader->vm, (uint32_t)region, first, count, words);
}

static const struct dirty_log_ops kvm_dirty_log_ops = {
    .enable = enable,
    .disable = disable,
    .get = get,
    .clear = clear,
};

void kvm_dirty_log_init(struct kvm_dirty_log_reader *reader, struct kvm_vm *vm, uint32_t slot_count)
{
    *reader = (struct kvm_dirty_log_reader){
        .base.ops = &kvm_dirty_log_ops,
        .vm = vm,
        .slot_count = slot_count,
    };
}
