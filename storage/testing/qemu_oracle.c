/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qemu_oracle.c - see qemu_oracle.h.
 * Tested by: qcow_oracle_test.c
 */
#include "storage/testing/qemu_oracle.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file_io.h"
#include "base/limits.h"
#include "base/unit_test.h"
#include "storage/host_file.h"

#define LOADED_BYTES_MAX (64 * MIB)
#define PATH_BYTES       160u

bool qemu_oracle_has(const char *programs)
{
    char command[256];

    (void)snprintf(command, sizeof(command),
                   "for program in %s; do $program --version >/dev/null 2>&1 || exit 1; done",
                   programs);
    if (system(command) == 0)
        return true;
    print_message("skipped what needs %s: not installed (apt: qemu-utils, libnbd-bin)\n", programs);
    return false;
}

int qemu_oracle_init_in(struct qemu_oracle *oracle, const char *parent, const char *test_name)
{
    (void)snprintf(oracle->folder, sizeof(oracle->folder), "%s/%s.XXXXXX", parent, test_name);
    if (mkdtemp(oracle->folder) == NULL)
        return -1;
    (void)snprintf(oracle->disk, sizeof(oracle->disk), "%s/disk.qcow2", oracle->folder);
    return 0;
}

int qemu_oracle_init(struct qemu_oracle *oracle, const char *test_name)
{
    return qemu_oracle_init_in(oracle, access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp",
                               test_name);
}

int qemu_oracle_finish(const struct qemu_oracle *oracle)
{
    char command[128];

    (void)snprintf(command, sizeof(command), "rm -rf %s", oracle->folder);
    return system(command);
}

int qemu_oracle_run(const struct qemu_oracle *oracle, const char *fmt, ...)
{
    char command[1024], whole[1200];
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(command, sizeof(command), fmt, args);
    va_end(args);
    (void)snprintf(whole, sizeof(whole), "cd %s && { %s; } >last.log 2>&1", oracle->folder,
                   command);
    int status = system(whole);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

struct qemu_oracle_verdict qemu_oracle_judge(const struct qemu_oracle *oracle, const uint8_t *model,
                                             size_t len)
{
    struct qemu_oracle_verdict verdict;

    qemu_oracle_store(oracle, "model.raw", model, len);
    verdict.check = qemu_oracle_run(oracle, "qemu-img check -f qcow2 disk.qcow2");
    verdict.compare =
        qemu_oracle_run(oracle, "qemu-img compare -f qcow2 -F raw disk.qcow2 model.raw");
    return verdict;
}

struct host_file *qemu_oracle_open_disk(const struct qemu_oracle *oracle)
{
    struct host_file *file = NULL;

    ASSERT_OK(host_file_from_fd(open(oracle->disk, O_RDWR | O_CLOEXEC), oracle->disk, &file));
    return file;
}

struct image_bytes qemu_oracle_load(const struct qemu_oracle *oracle, const char *name)
{
    struct image_bytes image = {.data = NULL};
    char path[PATH_BYTES];
    void *data = NULL;

    (void)snprintf(path, sizeof(path), "%s/%s", oracle->folder, name);
    ASSERT_OK(file_read_all(path, LOADED_BYTES_MAX, &data, &image.len));
    image.data = data;
    return image;
}

void qemu_oracle_store(const struct qemu_oracle *oracle, const char *name, const uint8_t *data,
                       size_t len)
{
    char path[PATH_BYTES];

    (void)snprintf(path, sizeof(path), "%s/%s", oracle->folder, name);
    FILE *file = fopen(path, "wb");
    if (file == NULL) {
        fail_msg("can not write %s", path);
        return;
    }
    assert_int_equal(fwrite(data, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
}
