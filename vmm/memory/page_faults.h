/* SPDX-License-Identifier: Apache-2.0 */
/*
 * page_faults.h - the one door to userfaultfd: who touches a page that is not there yet waits
 * until it is filled.
 *
 * Thread: filling from several threads at once is fine, also of the same page; faults are taken by
 * one thread.
 */
#ifndef VMM_MEMORY_PAGE_FAULTS_H
#define VMM_MEMORY_PAGE_FAULTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct page_faults;

/* Watches a mapping of a memory file that has no pages yet. ERR_DENIED when the host does not let
 * this process do that. */
ERR_RESULT page_faults_open(void *base, uint64_t bytes, struct page_faults **out_faults);
/* Ends the watch; pages that were not filled are zero from then on. Accepts NULL. */
void page_faults_close(struct page_faults *faults);
/* The same, but the object stays, for threads that still hold it. */
void page_faults_end(struct page_faults *faults);

int page_faults_fd(const struct page_faults *faults); /* readable when somebody waits */
/* A page that somebody waits for, by its offset; false when there is none now. */
bool page_faults_take(struct page_faults *faults, uint64_t *out_offset);

/* Whole pages. Those that are there already stay as they are. */
ERR_RESULT page_faults_fill(struct page_faults *faults, uint64_t offset, const void *data,
                            uint64_t bytes);
ERR_RESULT page_faults_fill_zero(struct page_faults *faults, uint64_t offset, uint64_t bytes);
/* Who touches the page from here on gets an error instead of waiting; where the host can not do
 * that, it waits for ever. */
void page_faults_poison(struct page_faults *faults, uint64_t offset, uint64_t bytes);

#endif
