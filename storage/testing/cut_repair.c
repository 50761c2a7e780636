/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cut_repair.c - see cut_repair.h.
 * Tested by: qcow_snapshot_cut_test.c, qcow_resize_cut_test.c
 */
#include "storage/testing/cut_repair.h"

#include "base/unit_test.h"
#include "storage/qcow/qcow_repair.h"
#include "storage/testing/host_file_fake.h"
#include "storage/testing/qcow_checker.h"

uint8_t *cut_repair(const struct cut_state *state, size_t *out_len)
{
    struct host_file *file = NULL;
    struct qcow_repair_report report;
    void *bytes = NULL;

    ASSERT_OK(host_file_fake_create(state->bytes, state->len, &file));
    host_file_fake_keep(file, &bytes, out_len);
    ASSERT_OK(qcow_repair(file, QCOW_REPAIR_ALL, NULL, &report));
    if (report.after.errors + report.after.leaks > 0)
        fail_msg("cut after %zu writes, %s: repair leaves %llu errors and %llu leaks", state->cut,
                 state->which, (unsigned long long)report.after.errors,
                 (unsigned long long)report.after.leaks);
    host_file_destroy(file);
    struct qcow_verdict verdict = qcow_checker_run(bytes, *out_len);
    if (verdict.errors > 0 || verdict.leaks > 0)
        fail_msg("cut after %zu writes, %s, repaired: %s", state->cut, state->which, verdict.first);
    return bytes;
}
