/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/checked_math.h"
#include "base/unit_test.h"
#include "storage/image_graph.h"
#include "storage/overlay_file.h"

static char folder[64];
static struct image_graph graph;

static void must(const char *command)
{
    char whole[512];

    (void)snprintf(whole, sizeof(whole), "cd %s && ( %s ) > log 2>&1", folder, command);
    int status = system(whole);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("%s", command);
}

/* base.img <- a.qcow2 <- b.qcow2 <- c.qcow2, and d.qcow2 on a */
static int start(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof(folder), "/tmp/ferry-graph-XXXXXX");
    assert_non_null(mkdtemp(folder));
    must("mkdir images && cd images && truncate -s 1M base.img &&"
         "qemu-img create -f qcow2 -b base.img -F raw a.qcow2 &&"
         "qemu-img create -f qcow2 -b a.qcow2 -F qcow2 b.qcow2 &&"
         "qemu-img create -f qcow2 -b b.qcow2 -F qcow2 c.qcow2 &&"
         "qemu-img create -f qcow2 -b a.qcow2 -F qcow2 d.qcow2");
    return 0;
}

static int stop(void **state)
{
    char command[128];

    (void)state;
    image_graph_finish(&graph);
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    return system(command);
}

static struct err *look(void)
{
    char path[96];

    image_graph_finish(&graph);
    (void)snprintf(path, sizeof(path), "%s/images", folder);
    TRY(image_graph_add_folder(&graph, path));
    return image_graph_connect(&graph, NULL, 0);
}

static size_t node(const char *name)
{
    for (size_t i = 0; i < graph.count; i++)
        if (strcmp(graph.nodes[i].name, name) == 0)
            return i;
    fail_msg("no node '%s'", name);
    return 0;
}

static void keep(const char *name)
{
    image_graph_keep(&graph, node(name));
}

static void expect_kept(const char *names)
{
    char kept[64] = "";
    size_t count = 0;

    for (const char *c = "abcdexy"; *c != '\0'; c++)
        for (size_t i = 0; i < graph.count && count + 1 < sizeof(kept); i++)
            if (graph.nodes[i].is_kept && graph.nodes[i].name[0] == *c &&
                strcmp(graph.nodes[i].name, "base.img") != 0)
                kept[count++] = *c;
    assert_string_equal(kept, names);
}

TEST(an_image_is_kept_with_all_that_it_stands_on)
{
    ASSERT_OK(look());
    assert_int_equal(graph.nodes[node("a.qcow2")].children, 2);
    keep("d.qcow2");
    expect_kept("ad");
    assert_true(graph.nodes[node("base.img")].is_kept);
    keep("c.qcow2");
    expect_kept("abcd");
}

TEST(other_folders_and_links_lead_to_the_same_files)
{
    must("mkdir other && cd other && ln -s ../images via &&"
         "qemu-img create -f qcow2 -b via/b.qcow2 -F qcow2 x.qcow2 && cd ../images &&"
         "qemu-img create -f qcow2 -b ../other/x.qcow2 -F qcow2 y.qcow2");
    ASSERT_OK(look());
    keep("y.qcow2");
    expect_kept("abxy");

    /* A link is a name of the file. */
    must("cd images && ln -s d.qcow2 e.qcow2 && ln -s nowhere dangling && mkfifo pipe");
    ASSERT_OK(look());
    keep("e.qcow2");
    expect_kept("ade");
}

TEST(images_that_this_version_can_not_read_say_what_they_need)
{
    must("cd images && qemu-img create -f qcow2 -b b.qcow2 -F qcow2 -o compat=0.10 x.qcow2 &&"
         "printf '\\377' | dd of=c.qcow2 bs=1 seek=79 conv=notrunc");
    ASSERT_OK(look());
    keep("c.qcow2");
    expect_kept("abc");
    ASSERT_OK(look());
    keep("x.qcow2");
    expect_kept("abx");
}

TEST(what_can_not_be_known_is_refused)
{
    static const char *const steps[] = {
        "mv images/a.qcow2 a.kept",
        "mv images/a.qcow2 a.kept && ln -s a.qcow2 images/a.qcow2",
        "printf 'no image' > images/x.qcow2",
        /* A name longer than any, one behind the end of the file, and one that is no path. */
        "printf '\\377' | dd of=images/c.qcow2 bs=1 seek=18 conv=notrunc",
        "printf '\\017' | dd of=images/c.qcow2 bs=1 seek=13 conv=notrunc",
        "cd images && qemu-img create -f qcow2 -u -b json:{} -F qcow2 x.qcow2 1M",
    };

    for (size_t i = 0; i < ARRAY_COUNT(steps); i++) {
        must("cp -a images kept");
        must(steps[i]);
        struct err *err = look();
        if (err == NULL)
            fail_msg("%s", steps[i]);
        err_free(err);
        must("rm -rf images && mv kept images");
    }
    ASSERT_OK(look());
}

/* A guest may write into its raw disk what it likes. */
TEST(what_a_raw_image_holds_means_nothing)
{
    must("cd images && qemu-img create -f qcow2 -u -b nowhere -F qcow2 fake 1M &&"
         "dd if=fake of=base.img conv=notrunc && rm fake");
    ASSERT_OK(look());

    must("cd images && cp base.img data.img");
    err_free(look());
    struct stat status;
    char path[96];
    (void)snprintf(path, sizeof(path), "%s/images/data.img", folder);
    assert_int_equal(stat(path, &status), 0);
    image_graph_finish(&graph);
    (void)snprintf(path, sizeof(path), "%s/images", folder);
    ASSERT_OK(image_graph_add_folder(&graph, path));
    ASSERT_OK(image_graph_connect(&graph, &status, 1));
}

TEST(circles_end)
{
    must("cd images && qemu-img rebase -u -b c.qcow2 -F qcow2 a.qcow2");
    ASSERT_OK(look());
    keep("b.qcow2");
    expect_kept("abc");
}

TEST(names_tell_what_a_file_is_to_a_disk)
{
    static const struct {
        const char *path, *name;
        enum overlay_file_kind kind;
        unsigned number;
    } rows[] = {
        {"/x/web.img", "web.000007.qcow2", OVERLAY_FILE_OVERLAY, 7},
        {"web.000001.qcow2", "web.000012.qcow2", OVERLAY_FILE_OVERLAY, 12},
        {"web.000001.qcow2", "web.img", OVERLAY_FILE_BASE, 0},
        {"web.img", "web.qcow2", OVERLAY_FILE_BASE, 0},
        {"web.img", "web.000007.qcow2.merging", OVERLAY_FILE_MERGING, 7},
        {"web.img", "web.qcow2.merging", OVERLAY_FILE_MERGING, 0},
        {"web.img", "web2.000007.qcow2", OVERLAY_FILE_OTHER, 0},
        {"web.img", "we.000007.qcow2", OVERLAY_FILE_OTHER, 0},
        {"web.img", "web.000001.000007.qcow2", OVERLAY_FILE_OTHER, 0},
        {"web.img", "web.00007.qcow2", OVERLAY_FILE_OTHER, 0},
        {"web.img", "web.000007.img", OVERLAY_FILE_OTHER, 0},
        {"web.img", ".merging", OVERLAY_FILE_OTHER, 0},
    };

    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        unsigned number = 99;
        assert_int_equal(overlay_file_look(rows[i].path, rows[i].name, &number), rows[i].kind);
        assert_int_equal(number, rows[i].number);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_image_is_kept_with_all_that_it_stands_on, start, stop),
        cmocka_unit_test_setup_teardown(other_folders_and_links_lead_to_the_same_files, start,
                                        stop),
        cmocka_unit_test_setup_teardown(images_that_this_version_can_not_read_say_what_they_need,
                                        start, stop),
        cmocka_unit_test_setup_teardown(what_can_not_be_known_is_refused, start, stop),
        cmocka_unit_test_setup_teardown(what_a_raw_image_holds_means_nothing, start, stop),
        cmocka_unit_test_setup_teardown(circles_end, start, stop),
        cmocka_unit_test(names_tell_what_a_file_is_to_a_disk),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
