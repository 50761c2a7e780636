/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/limits.h"
#include "base/unit_test.h"
#include "storage/image_folders.h"

/* vms/ holds the disk's image, bases/ is what the operator may allow. */
static char root[] = "/tmp/image_folders_test.XXXXXX";

static const char *at(const char *name)
{
    static char paths[4][128];
    static unsigned next;
    char *path = paths[next++ % 4];

    (void)snprintf(path, sizeof(paths[0]), "%s/%s", root, name);
    return path;
}

static void make_file(const char *name)
{
    int fd = open(at(name), O_WRONLY | O_CREAT | O_TRUNC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, name, strlen(name)), (ssize_t)strlen(name));
    assert_int_equal(close(fd), 0);
}

static struct image_folders *folders_of(const char *image, const char *named)
{
    struct image_folders *folders = NULL;

    ASSERT_OK(image_folders_create(image, &named, named == NULL ? 0 : 1, &folders));
    return folders;
}

/* Opens and says what the file holds: its name under `root`. */
static void expect_opens(const char *named, const char *backing_name, const char *content)
{
    struct image_folders *folders = folders_of(at("vms/web.qcow2"), named);
    char data[64] = "";
    char *path = NULL;
    int fd = -1;

    ASSERT_OK(image_folders_open(folders, at("vms/web.qcow2"), backing_name, &fd, &path));
    assert_int_equal(path[0], '/');
    assert_true(read(fd, data, sizeof(data) - 1) > 0);
    assert_string_equal(data, content);
    assert_int_equal(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
    assert_int_equal(close(fd), 0);
    free(path);
    image_folders_destroy(folders);
}

static void expect_refused(const char *named, const char *backing_name, enum err_kind kind,
                           const char *text)
{
    struct image_folders *folders = folders_of(at("vms/web.qcow2"), named);
    char *path = NULL;
    int fd = -1;

    struct err *err = image_folders_open(folders, at("vms/web.qcow2"), backing_name, &fd, &path);
    assert_non_null(err);
    if (err_kind(err) != kind || strstr(err_message(err), text) == NULL)
        fail_msg("'%s': %s", backing_name, err_message(err));
    assert_int_equal(fd, -1);
    err_free(err);
    image_folders_destroy(folders);
}

TEST(the_folder_of_the_image_is_allowed)
{
    expect_opens(NULL, "base.img", "vms/base.img");
    expect_opens(NULL, "./base.img", "vms/base.img");
    expect_opens(NULL, "../vms//base.img", "vms/base.img");
    expect_opens(NULL, at("vms/base.img"), "vms/base.img");
    expect_opens(NULL, "link.img", "vms/base.img");
    expect_opens(NULL, "deeper/x.img", "vms/deeper/x.img");
}

TEST(other_folders_are_allowed_by_name)
{
    expect_refused(NULL, "../bases/debian.img", ERR_DENIED, "--image-folder");
    expect_refused(NULL, at("bases/debian.img"), ERR_DENIED, at("bases"));
    expect_opens(at("bases"), "../bases/debian.img", "bases/debian.img");
    expect_opens(at("bases"), at("bases/debian.img"), "bases/debian.img");
    /* By either of its names, whichever was allowed. */
    expect_opens(at("alias"), at("bases/debian.img"), "bases/debian.img");
    expect_opens(at("alias"), at("alias/debian.img"), "bases/debian.img");
    expect_opens("/", at("bases/debian.img"), "bases/debian.img");
    expect_refused(at("bases"), "/etc/passwd", ERR_DENIED, "--image-folder /etc");
    expect_refused(at("bases"), at("bases2/x.img"), ERR_DENIED, "bases2");
}

TEST(names_that_reach_beyond_files_are_refused)
{
    expect_refused(NULL, "json:{\"driver\":\"nbd\"}", ERR_INCOMPATIBLE, "not a plain path");
    expect_refused(NULL, "nbd:localhost:10809", ERR_INCOMPATIBLE, "not a plain path");
    expect_refused(NULL, "nbd://localhost/x", ERR_INCOMPATIBLE, "not a plain path");
    expect_refused(NULL, "file:base.img", ERR_INCOMPATIBLE, "not a plain path");
    expect_refused(NULL, "", ERR_INCOMPATIBLE, "not a plain path");
}

TEST(links_do_not_lead_out)
{
    expect_refused(NULL, "out.img", ERR_DENIED, "symbolic link");
    expect_refused(NULL, "out/debian.img", ERR_DENIED, "symbolic link");
    expect_refused(NULL, "turn.img", ERR_DENIED, "symbolic link");
    expect_refused("/proc", "/proc/self/exe", ERR_DENIED, "symbolic link");
    /* Allowing where it leads does not help: the name must be the file's own. */
    expect_refused(at("bases"), "out.img", ERR_DENIED, "symbolic link");
    /* A folder around both does. */
    expect_opens(root, "rel.img", "bases/debian.img");
}

TEST(what_is_not_a_file_is_not_opened)
{
    expect_refused(NULL, "pipe", ERR_INVALID, "not a regular file");
    expect_refused(NULL, "deeper", ERR_INVALID, "not a regular file");
    expect_refused(NULL, ".", ERR_DENIED, "not in a folder");
    expect_refused("/dev", "/dev/null", ERR_INVALID, "not a regular file");
    expect_refused(NULL, "missing.img", ERR_NOT_FOUND, "missing.img");
    expect_refused(NULL, "base.img/x", ERR_IO, "Not a directory");
}

TEST(relative_images_work_too)
{
    struct image_folders *folders = NULL;
    char *path = NULL;
    int fd = -1;

    assert_int_equal(chdir(at("vms")), 0);
    folders = folders_of("web.qcow2", "../bases");
    ASSERT_OK(image_folders_open(folders, "web.qcow2", "base.img", &fd, &path));
    assert_string_equal(path, at("vms/base.img"));
    free(path);
    assert_int_equal(close(fd), 0);
    ASSERT_OK(image_folders_open(folders, "web.qcow2", "../bases/debian.img", &fd, &path));
    assert_string_equal(path, at("bases/debian.img"));
    free(path);
    assert_int_equal(close(fd), 0);
    image_folders_destroy(folders);
    assert_int_equal(chdir("/"), 0);
}

TEST(folders_must_be_there_and_few)
{
    const char *many[IMAGE_FOLDERS_MAX + 1];
    struct image_folders *folders = NULL;

    for (size_t i = 0; i < IMAGE_FOLDERS_MAX + 1; i++)
        many[i] = "/";
    assert_fails(image_folders_create(at("vms/web.qcow2"), many, IMAGE_FOLDERS_MAX + 1, &folders),
                 ERR_INVALID);
    many[0] = at("none");
    assert_fails(image_folders_create(at("vms/web.qcow2"), many, 1, &folders), ERR_IO);
    assert_fails(image_folders_create(at("none/web.qcow2"), NULL, 0, &folders), ERR_IO);
    image_folders_destroy(NULL);
}

static int make_tree(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(root));
    assert_int_equal(mkdir(at("vms"), 0700), 0);
    assert_int_equal(mkdir(at("vms/deeper"), 0700), 0);
    assert_int_equal(mkdir(at("bases"), 0700), 0);
    assert_int_equal(mkdir(at("bases2"), 0700), 0);
    make_file("vms/base.img");
    make_file("vms/deeper/x.img");
    make_file("bases/debian.img");
    make_file("bases2/x.img");
    assert_int_equal(mkfifo(at("vms/pipe"), 0600), 0);
    assert_int_equal(symlink("base.img", at("vms/link.img")), 0);
    assert_int_equal(symlink(at("bases/debian.img"), at("vms/out.img")), 0);
    assert_int_equal(symlink("../bases/debian.img", at("vms/rel.img")), 0);
    assert_int_equal(symlink("../bases", at("vms/out")), 0);
    assert_int_equal(symlink("turn.img", at("vms/turn.img")), 0);
    assert_int_equal(symlink("bases", at("alias")), 0);
    return 0;
}

static int remove_tree(void **state)
{
    char command[128];

    (void)state;
    (void)snprintf(command, sizeof(command), "rm -rf %s", root);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_folder_of_the_image_is_allowed),
        cmocka_unit_test(other_folders_are_allowed_by_name),
        cmocka_unit_test(names_that_reach_beyond_files_are_refused),
        cmocka_unit_test(links_do_not_lead_out),
        cmocka_unit_test(what_is_not_a_file_is_not_opened),
        cmocka_unit_test(relative_images_work_too),
        cmocka_unit_test(folders_must_be_there_and_few),
    };

    return cmocka_run_group_tests(tests, make_tree, remove_tree);
}
