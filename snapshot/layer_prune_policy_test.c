/* SPDX-License-Identifier: Apache-2.0 */
#include "base/checked_math.h"
#include "base/unit_test.h"
#include "snapshot/layer_prune_policy.h"

/* A sealed overlay that nothing needs. */
static const struct layer_facts sealed = {.kind = OVERLAY_FILE_OVERLAY,
                                          .head = IMAGE_HEAD_QCOW,
                                          .number = 3,
                                          .newest = 9,
                                          .is_sealed = true,
                                          .is_known = true,
                                          .is_on_own = true,
                                          .is_below_sealed = true};

/* One that was prepared over the image in use. */
static const struct layer_facts prepared = {.kind = OVERLAY_FILE_OVERLAY,
                                            .head = IMAGE_HEAD_QCOW,
                                            .number = 10,
                                            .newest = 9,
                                            .is_on_own = true};

static enum layer_verdict decide(struct layer_facts facts)
{
    return layer_prune_decide(&facts);
}

TEST(a_sealed_layer_is_removed_only_if_everything_speaks_for_it)
{
    struct layer_facts facts[9];

    assert_int_equal(decide(sealed), LAYER_REMOVABLE);
    for (size_t i = 0; i < ARRAY_COUNT(facts); i++)
        facts[i] = sealed;
    facts[0].is_needed = true;
    facts[1].has_other_names = true;
    facts[2].is_sealed = false;
    facts[3].is_on_own = false;
    facts[4].number = facts[4].newest;
    facts[5].head = IMAGE_HEAD_OTHER;
    facts[6].head = IMAGE_HEAD_BROKEN;
    facts[7].kind = OVERLAY_FILE_BASE;
    facts[8].kind = OVERLAY_FILE_OTHER;
    for (size_t i = 0; i < ARRAY_COUNT(facts); i++)
        assert_int_equal(decide(facts[i]), LAYER_KEPT);
}

TEST(a_layer_of_which_not_all_stores_are_known_stays)
{
    struct layer_facts facts = sealed;

    facts.is_known = false;
    assert_int_equal(decide(facts), LAYER_UNKNOWN);
}

TEST(an_overlay_is_abandoned_only_over_an_image_that_was_never_sealed)
{
    struct layer_facts facts = prepared;

    assert_int_equal(decide(facts), LAYER_ABANDONED);
    facts.is_below_sealed = true; /* a machine goes on here, though it has written nothing */
    assert_int_equal(decide(facts), LAYER_KEPT);
    facts = prepared;
    facts.newest = 11;
    assert_int_equal(decide(facts), LAYER_KEPT);
    facts = prepared;
    facts.is_on_own = false;
    assert_int_equal(decide(facts), LAYER_KEPT);
    facts = prepared;
    facts.is_needed = true;
    assert_int_equal(decide(facts), LAYER_KEPT);
}

TEST(an_overlay_that_was_never_finished_is_abandoned)
{
    struct layer_facts facts = prepared;

    facts.head = IMAGE_HEAD_BLANK;
    facts.is_on_own = false;
    assert_int_equal(decide(facts), LAYER_ABANDONED);
    facts.is_sealed = true;
    assert_int_equal(decide(facts), LAYER_KEPT);
    facts.is_sealed = false;
    facts.kind = OVERLAY_FILE_BASE; /* a raw disk without content */
    assert_int_equal(decide(facts), LAYER_KEPT);
}

TEST(drafts_of_merges_are_told_by_their_names)
{
    struct layer_facts facts = {.kind = OVERLAY_FILE_MERGING, .number = 4, .newest = 9};

    assert_int_equal(decide(facts), LAYER_DRAFT);
    facts.has_other_names = true;
    assert_int_equal(decide(facts), LAYER_KEPT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sealed_layer_is_removed_only_if_everything_speaks_for_it),
        cmocka_unit_test(a_layer_of_which_not_all_stores_are_known_stays),
        cmocka_unit_test(an_overlay_is_abandoned_only_over_an_image_that_was_never_sealed),
        cmocka_unit_test(an_overlay_that_was_never_finished_is_abandoned),
        cmocka_unit_test(drafts_of_merges_are_told_by_their_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
