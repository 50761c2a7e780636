/* SPDX-License-Identifier: Apache-2.0 */
/*
 * msr_table.h - which model-specific registers make up a vCPU's state. Thread: any.
 */
#ifndef VMM_CPU_MSR_TABLE_H
#define VMM_CPU_MSR_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MSR_TSC          0x10u
#define MSR_TSC_DEADLINE 0x6e0u

#define MSR_COUNT_MAX 512u /* of one vCPU */

/* Not part of the state: commands, descriptions of the host, what guests are not offered, and
 * those that other sections carry. */
bool msr_is_skipped(uint32_t index);

/* A host may refuse to set it although it serves the guest as well: what describes the host. */
bool msr_may_be_refused(uint32_t index);

/* The registers to save: what KVM lists, less the skipped ones, and those that it forgets to list;
 * each once, the timer's deadline last. Returns the count. */
size_t msr_table_choose(const uint32_t *listed, size_t listed_count,
                        uint32_t out_indices[MSR_COUNT_MAX]);

#endif
