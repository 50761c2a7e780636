/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked_math.h"
#include "base/unit_test.h"
#include "tools/vm-run/run_options.h"

static struct err *make(const char *const *arguments, size_t count,
                        struct run_description *out_machine)
{
    struct run_options options = {0};
    struct option_result result;
    char *argv[16] = {0};

    for (size_t i = 0; i < count; i++)
        argv[i] = (char *)(uintptr_t)arguments[i];
    TRY(option_table_parse(&run_option_table, (int)count, argv, &options, &result));
    return run_description_init(&options, out_machine);
}

#define MAKE(out_machine, ...)                                                                     \
    make((const char *const[]){"vm-run", __VA_ARGS__},                                             \
         ARRAY_COUNT(((const char *const[]){"vm-run", __VA_ARGS__})), out_machine)

static void assert_is_at(const char *path, const char *root, const char *name)
{
    char wanted[128];

    (void)snprintf(wanted, sizeof(wanted), "%s/%s", root, name);
    assert_string_equal(path, wanted);
}

TEST(memory_above_three_gib_goes_above_four)
{
    struct run_description machine;

    ASSERT_OK(MAKE(&machine, "--memory", "4096", "--kernel", "k"));
    assert_int_equal(machine.description->config->memory_mib, 4096);
    assert_int_equal(machine.description->config->memory_below_4g_mib, 3072);
    run_description_finish(&machine);
    ASSERT_OK(MAKE(&machine, "--memory=64", "--memory-below-4g=32"));
    assert_int_equal(machine.description->config->memory_below_4g_mib, 32);
    run_description_finish(&machine);
}

TEST(disks_and_networks_are_described)
{
    struct run_description machine;
    const char *disk = "id=root,path=/a b.img,format=raw,readonly=1,cache=none,on-error=stop,"
                       "iops=500,detect-zeroes=unmap,engine=threads";

    ASSERT_OK(MAKE(&machine, "--disk", disk, "--net", "id=lan,fd=7,mac=02:00:00:00:00:01"));
    const Ferry__MachineConfig *config = machine.description->config;
    assert_int_equal(config->n_disks, 1);
    assert_string_equal(config->disks[0]->path, "/a b.img");
    assert_true(config->disks[0]->read_only);
    assert_string_equal(config->disks[0]->cache, "none");
    assert_string_equal(config->disks[0]->on_error, "stop");
    assert_string_equal(config->disks[0]->detect_zeroes, "unmap");
    assert_string_equal(config->disks[0]->engine, "threads");
    assert_int_equal(config->disks[0]->requests_per_second, 500);
    assert_int_equal(config->disks[0]->bytes_per_second, 0);
    assert_true(config->nets[0]->tap_by_fd);
    assert_int_equal(config->nets[0]->mac.data[5], 1);
    assert_int_equal(machine.tap_fd_count, 1);
    assert_int_equal(machine.tap_fds[0], 7);
    run_description_finish(&machine);
}

TEST(a_disk_has_as_many_queues_as_vcpus_unless_it_is_said)
{
    const char *const plain = "id=root,path=/a.img,format=raw";
    const struct {
        const char *cpus, *disk;
        unsigned queues;
    } rows[] = {
        {"1", plain, 1},
        {"3", plain, 3},
        {"64", plain, MACHINE_QUEUES_MAX},
        {"8", "id=root,path=/a.img,format=raw,queues=2", 2},
    };

    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        struct run_description machine;
        ASSERT_OK(MAKE(&machine, "--cpus", rows[i].cpus, "--disk", rows[i].disk));
        assert_int_equal(machine.description->config->disks[0]->queues, rows[i].queues);
        run_description_finish(&machine);
    }
}

TEST(trackers_of_a_disk_are_named)
{
    struct run_description machine;

    ASSERT_OK(MAKE(&machine, "--disk", "id=root,path=/a.img,format=raw,track=daily+mirror"));
    const Ferry__DiskConfig *disk = machine.description->config->disks[0];
    assert_int_equal(disk->n_trackers, 2);
    assert_string_equal(disk->trackers[0], "daily");
    assert_string_equal(disk->trackers[1], "mirror");
    run_description_finish(&machine);
}

TEST(files_are_named_for_those_in_other_folders)
{
    struct run_description machine;
    char root[] = "/tmp/run_options_test.XXXXXX";

    assert_non_null(mkdtemp(root));
    assert_int_equal(chdir(root), 0);
    assert_int_equal(mkdir("images", 0700), 0);
    assert_int_equal(symlink("images", "alias"), 0);
    assert_int_equal(symlink("../images/golden.img", "images/today.img"), 0);
    assert_int_equal(symlink("/dev/null", "volume"), 0);
    assert_int_equal(close(open("images/golden.img", O_CREAT | O_WRONLY, 0600)), 0);
    ASSERT_OK(MAKE(&machine, "--kernel", "k", "--image-folder", "alias", "--disk",
                   "id=a,path=alias/golden.img,format=raw", "--disk",
                   "id=b,path=images/today.img,format=raw", "--disk", "id=c,path=volume,format=raw",
                   "--disk", "id=d,path=no/such,format=raw"));
    const Ferry__MachineConfig *config = machine.description->config;
    assert_is_at(config->kernel, root, "k");
    assert_string_equal(config->initrd, "");
    assert_is_at(config->image_folders[0], root, "alias");
    assert_is_at(config->disks[0]->path, root, "images/golden.img");
    assert_is_at(config->disks[1]->path, root, "images/golden.img");
    assert_is_at(config->disks[2]->path, root, "volume");
    assert_is_at(config->disks[3]->path, root, "no/such");
    run_description_finish(&machine);

    assert_fails(MAKE(&machine, "--image-folder", "missing"), ERR_IO);
    static const char *const files[] = {"images/today.img", "images/golden.img", "alias", "volume"};
    for (size_t i = 0; i < ARRAY_COUNT(files); i++)
        assert_int_equal(unlink(files[i]), 0);
    assert_int_equal(rmdir("images"), 0);
    assert_int_equal(chdir("/"), 0);
    assert_int_equal(rmdir(root), 0);
}

TEST(a_uuid_is_taken_or_made)
{
    struct run_description machine;

    ASSERT_OK(MAKE(&machine, "--uuid", "00112233-4455-6677-8899-aabbccddeeff"));
    assert_int_equal(machine.description->config->uuid.data[15], 0xff);
    run_description_finish(&machine);
    ASSERT_OK(MAKE(&machine, "--name", "x"));
    assert_int_equal(machine.description->config->uuid.data[6] >> 4, 4);
    run_description_finish(&machine);
}

TEST(specifications_that_say_too_little_or_too_much_are_refused)
{
    struct run_description machine;

    assert_fails(MAKE(&machine, "--disk", "id=a,path=b"), ERR_INVALID);
    assert_fails(MAKE(&machine, "--disk", "id=a,path=b,format=raw,colour=red"), ERR_INVALID);
    assert_fails(MAKE(&machine, "--disk", "id=a,path=b,format=raw,queues=0"), ERR_INVALID);
    assert_fails(MAKE(&machine, "--disk", "id=a,path=b,format=raw,queues=5"), ERR_INVALID);
    assert_fails(MAKE(&machine, "--net", "id=a"), ERR_INVALID);
    assert_fails(MAKE(&machine, "--net", "id=a,tap=t,fd=3"), ERR_INVALID);
    assert_fails(MAKE(&machine, "--net", "id=a,tap=t,mac=02:00"), ERR_INVALID);
    assert_fails(MAKE(&machine, "--uuid", "123"), ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_above_three_gib_goes_above_four),
        cmocka_unit_test(disks_and_networks_are_described),
        cmocka_unit_test(a_disk_has_as_many_queues_as_vcpus_unless_it_is_said),
        cmocka_unit_test(trackers_of_a_disk_are_named),
        cmocka_unit_test(files_are_named_for_those_in_other_folders),
        cmocka_unit_test(a_uuid_is_taken_or_made),
        cmocka_unit_test(specifications_that_say_too_little_or_too_much_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
