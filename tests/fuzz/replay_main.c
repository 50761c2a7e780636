/* SPDX-License-Identifier: Apache-2.0 */
/*
 * replay_main.c - runs a fuzz target over a corpus, for builds without libFuzzer.
 *
 * Arguments are files, or folders whose files are taken; none at all is a failure. Each is run
 * whole and cut at many lengths, so that a small corpus still meets every early end.
 * Tested by: the fuzz tests themselves.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file_io.h"
#include "base/limits.h"

#define INPUT_BYTES_MAX (4u * MIB)
#define CUTS_MAX        512u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A copy of exactly `size` bytes, so that a sanitizer sees every read past the end. */
static void run_once(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size > 0 ? size : 1);

    if (copy == NULL)
        exit(EXIT_FAILURE);
    memcpy(copy, data, size);
    (void)LLVMFuzzerTestOneInput(copy, size);
    free(copy);
}

static unsigned file_count;

static int replay_file(const char *path)
{
    void *data = NULL;
    size_t len = 0;
    struct err *err = file_read_all(path, INPUT_BYTES_MAX, &data, &len);

    if (err != NULL) {
        (void)fprintf(stderr, "%s\n", err_message(err));
        err_free(err);
        return EXIT_FAILURE;
    }
    file_count++;
    run_once(data, len);
    for (size_t cut = 0; cut < len; cut += len / CUTS_MAX + 1)
        run_once(data, cut);
    free(data);
    return EXIT_SUCCESS;
}

static int replay(const char *path)
{
    DIR *folder = opendir(path);
    int result = EXIT_SUCCESS;

    if (folder == NULL)
        return replay_file(path);
    for (struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
        char file[PATH_BYTES_MAX + 1];

        if (entry->d_name[0] == '.')
            continue;
        (void)snprintf(file, sizeof(file), "%s/%s", path, entry->d_name);
        result |= replay_file(file);
    }
    closedir(folder);
    return result;
}

int main(int argc, char **argv)
{
    int result = EXIT_SUCCESS;

    for (int i = 1; i < argc; i++)
        result |= replay(argv[i]);
    (void)printf("%u files replayed\n", file_count);
    return file_count == 0 ? EXIT_FAILURE : result;
}
