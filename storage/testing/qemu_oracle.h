/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qemu_oracle.h - QEMU's tools as the judge of an image: a temporary folder, commands that run in
 * it, and files that go there and come back.
 *
 * Thread: the test's. The caller owns the struct; finish removes the folder with all that is in it.
 * What can not be done fails the test, but where a result is given.
 */
#ifndef STORAGE_TESTING_QEMU_ORACLE_H
#define STORAGE_TESTING_QEMU_ORACLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "storage/testing/image_fixture.h"

#define QEMU_ORACLE_SKIPPED 77 /* what a program exits with that can not be tested here */

struct host_file;

struct qemu_oracle {
    char folder[64];
    char disk[80]; /* the path of disk.qcow2 in it */
};

/* Are these programs installed, a list with spaces between? Says so if they are not all there. */
bool qemu_oracle_has(const char *programs);

/* A folder whose name begins with the test's. In memory where that is possible: barriers cost
 * nothing there. Both return 0 on success, as cmocka's fixtures do. */
int qemu_oracle_init(struct qemu_oracle *oracle, const char *test_name);
int qemu_oracle_init_in(struct qemu_oracle *oracle, const char *parent, const char *test_name);
int qemu_oracle_finish(const struct qemu_oracle *oracle);

/* Runs a command in the folder, what it prints goes to last.log; gives its exit code. */
__attribute__((format(printf, 2, 3))) int qemu_oracle_run(const struct qemu_oracle *oracle,
                                                          const char *fmt, ...);

/* The same for a command that must succeed. */
#define ASSERT_RUN(oracle, ...) assert_int_equal(qemu_oracle_run((oracle), __VA_ARGS__), 0)

/* What `qemu-img check` of disk.qcow2 and `qemu-img compare` of it with the model exit with; the
 * model stays in model.raw. */
struct qemu_oracle_verdict {
    int check, compare;
};

struct qemu_oracle_verdict qemu_oracle_judge(const struct qemu_oracle *oracle, const uint8_t *model,
                                             size_t len);

/* disk.qcow2 for reading and writing; the caller owns the file. */
struct host_file *qemu_oracle_open_disk(const struct qemu_oracle *oracle);

/* Whole files of the folder, at most 64 MiB; image_fixture_finish() what was loaded. */
struct image_bytes qemu_oracle_load(const struct qemu_oracle *oracle, const char *name);
void qemu_oracle_store(const struct qemu_oracle *oracle, const char *name, const uint8_t *data,
                       size_t len);

#endif
