/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/limits.h"
#include "base/unit_test.h"
#include "snapshot/manifest.h"
#include "snapshot/testing/manifest_sample.h"

/* Packs without any check, as an attacker would. */
static struct err *parse_packed(const Ferry__SnapshotManifest *manifest)
{
    CLEANUP(cleanup_manifest) Ferry__SnapshotManifest *parsed = NULL;
    size_t inner_len = ferry__snapshot_manifest__get_packed_size(manifest);
    uint8_t *inner = malloc(inner_len + 1);
    ferry__snapshot_manifest__pack(manifest, inner);
    Ferry__SnapshotManifestFile file = FERRY__SNAPSHOT_MANIFEST_FILE__INIT;
    file.checksum = XXH3_64bits(inner, inner_len);
    file.manifest.data = inner;
    file.manifest.len = inner_len;
    uint8_t *data = malloc(ferry__snapshot_manifest_file__get_packed_size(&file));
    size_t len = ferry__snapshot_manifest_file__pack(&file, data);

    struct err *err = manifest_parse("web/test", data, len, &parsed);
    free(inner);
    free(data);
    return err;
}

TEST(what_is_packed_is_parsed_again)
{
    CLEANUP(cleanup_manifest) Ferry__SnapshotManifest *manifest = manifest_sample();
    CLEANUP(cleanup_manifest) Ferry__SnapshotManifest *parsed = NULL;
    CLEANUP(cleanup_free) void *data = NULL;
    size_t len = 0;

    manifest_sample_make_child(manifest);
    ASSERT_OK(manifest_pack(manifest, &data, &len));
    ASSERT_OK(manifest_parse("web/test", data, len, &parsed));

    assert_string_equal(parsed->id, SAMPLE_CHILD_ID);
    assert_string_equal(parsed->parent, SAMPLE_ID);
    assert_int_equal(parsed->n_page_files, 2);
    assert_int_equal(manifest_page_count(parsed), 4 * MIB / PAGE_BYTES);
    assert_int_equal(manifest_part(parsed, SNAPSHOT_PART_STATE)->bytes, 100);
}

TEST(a_manifest_is_refused_at_every_shorter_length)
{
    CLEANUP(cleanup_manifest) Ferry__SnapshotManifest *manifest = manifest_sample();
    CLEANUP(cleanup_free) void *data = NULL;
    size_t len = 0;

    ASSERT_OK(manifest_pack(manifest, &data, &len));
    for (size_t cut = 0; cut < len; cut++) {
        Ferry__SnapshotManifest *parsed = NULL;
        assert_fails(manifest_parse("web/test", data, cut, &parsed), ERR_INVALID);
    }
}

TEST(a_changed_byte_is_found_wherever_it_is)
{
    CLEANUP(cleanup_manifest) Ferry__SnapshotManifest *manifest = manifest_sample();
    CLEANUP(cleanup_free) void *data = NULL;
    size_t len = 0;

    ASSERT_OK(manifest_pack(manifest, &data, &len));
    for (size_t at = 0; at < len; at++) {
        Ferry__SnapshotManifest *parsed = NULL;
        ((uint8_t *)data)[at] ^= 0x10;
        assert_fails(manifest_parse("web/test", data, len, &parsed), ERR_INVALID);
        ((uint8_t *)data)[at] ^= 0x10;
    }
}

TEST(a_later_format_is_refused_as_incompatible)
{
    CLEANUP(cleanup_manifest) Ferry__SnapshotManifest *manifest = manifest_sample();

    manifest->format = SNAPSHOT_FORMAT + 1;

    assert_fails(parse_packed(manifest), ERR_INCOMPATIBLE);
}

static void escape_by_id(Ferry__SnapshotManifest *m)
{
    manifest_sample_set(&m->id, "../../etc");
}
static void escape_by_machine(Ferry__SnapshotManifest *m)
{
    manifest_sample_set(&m->machine, "../web");
}
static void escape_by_page_file(Ferry__SnapshotManifest *m)
{
    manifest_sample_set(&m->page_files[0]->snapshot, "../../x");
}
static void overlap_regions(Ferry__SnapshotManifest *m)
{
    m->regions[1]->file_offset = 0;
}
static void wrap_regions(Ferry__SnapshotManifest *m)
{
    m->regions[0]->bytes = UINT64_MAX - PAGE_BYTES + 1;
}
static void lose_memory(Ferry__SnapshotManifest *m)
{
    m->description->config->memory_mib = 5;
}
static void claim_huge_memory(Ferry__SnapshotManifest *m)
{
    m->description->config->memory_mib = UINT64_MAX;
}
static void claim_no_vcpus(Ferry__SnapshotManifest *m)
{
    m->description->config->vcpus = 0;
}
static void lose_a_part(Ferry__SnapshotManifest *m)
{
    manifest_sample_set(&m->parts[2]->name, "index");
}
static void claim_huge_state(Ferry__SnapshotManifest *m)
{
    m->parts[2]->bytes = STATE_BYTES_MAX + 1;
}
static void have_a_parent_without_pages(Ferry__SnapshotManifest *m)
{
    manifest_sample_set(&m->parent, SAMPLE_CHILD_ID);
}
static void end_with_another_page_file(Ferry__SnapshotManifest *m)
{
    manifest_sample_set(&m->page_files[0]->snapshot, SAMPLE_CHILD_ID);
}
static void name_a_relative_disk(Ferry__SnapshotManifest *m)
{
    manifest_sample_set(&m->disks[0]->path, "web.qcow2");
}
static void name_another_disk(Ferry__SnapshotManifest *m)
{
    manifest_sample_set(&m->disks[0]->id, "vdb");
}

TEST(well_formed_messages_that_break_a_promise_are_refused)
{
    static void (*const changes[])(Ferry__SnapshotManifest *) = {
        escape_by_id,
        escape_by_machine,
        escape_by_page_file,
        overlap_regions,
        wrap_regions,
        lose_memory,
        claim_huge_memory,
        claim_no_vcpus,
        lose_a_part,
        claim_huge_state,
        have_a_parent_without_pages,
        end_with_another_page_file,
        name_a_relative_disk,
        name_another_disk,
    };

    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        CLEANUP(cleanup_manifest) Ferry__SnapshotManifest *manifest = manifest_sample();
        void *data = NULL;
        size_t len = 0;
        changes[i](manifest);
        assert_fails(parse_packed(manifest), ERR_INVALID);
        assert_fails(manifest_pack(manifest, &data, &len), ERR_INVALID);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_packed_is_parsed_again),
        cmocka_unit_test(a_manifest_is_refused_at_every_shorter_length),
        cmocka_unit_test(a_changed_byte_is_found_wherever_it_is),
        cmocka_unit_test(a_later_format_is_refused_as_incompatible),
        cmocka_unit_test(well_formed_messages_that_break_a_promise_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
