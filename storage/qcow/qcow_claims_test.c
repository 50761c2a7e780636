/* SPDX-License-Identifier: Apache-2.0 */
#include "base/unit_test.h"
#include "storage/qcow/qcow_claims.h"

#define CLAIMS 300u

static uint64_t random_state = 5;

static uint64_t random_below(uint64_t limit)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % limit;
}

static bool conflicts(const struct qcow_claim *a, const struct qcow_claim *b)
{
    return a->first <= b->last && b->first <= a->last &&
           (a->mode == QCOW_CLAIM_EXCLUSIVE || b->mode == QCOW_CLAIM_EXCLUSIVE);
}

TEST(readers_share_and_writers_wait)
{
    struct qcow_claims claims = {{NULL}, 0};
    struct qcow_claim reader = {.first = 10, .last = 20, .mode = QCOW_CLAIM_SHARED};
    struct qcow_claim other = {.first = 10, .last = 20, .mode = QCOW_CLAIM_SHARED};
    struct qcow_claim writer = {.first = 20, .last = 30, .mode = QCOW_CLAIM_EXCLUSIVE};

    qcow_claims_add(&claims, &reader);
    assert_false(qcow_claims_conflict(&claims, &other));
    assert_true(qcow_claims_conflict(&claims, &writer));
    qcow_claims_add(&claims, &other);
    qcow_claims_remove(&claims, &reader);
    assert_true(qcow_claims_conflict(&claims, &writer));
    qcow_claims_remove(&claims, &other);
    assert_false(qcow_claims_conflict(&claims, &writer));
    qcow_claims_add(&claims, &writer);
    assert_true(qcow_claims_conflict(&claims, &reader));
    qcow_claims_remove(&claims, &writer);
    assert_null(claims.roots[QCOW_CLAIM_SHARED]);
    assert_null(claims.roots[QCOW_CLAIM_EXCLUSIVE]);
}

TEST(many_claims_agree_with_a_plain_list)
{
    struct qcow_claims claims = {{NULL}, 0};
    static struct qcow_claim held[CLAIMS];
    static bool is_held[CLAIMS];

    for (unsigned round = 0; round < 50000; round++) {
        unsigned at = (unsigned)random_below(CLAIMS);
        if (is_held[at]) {
            qcow_claims_remove(&claims, &held[at]);
            is_held[at] = false;
            continue;
        }
        uint64_t first = random_below(4000), len = random_below(50) == 0 ? 1000 : random_below(20);
        struct qcow_claim wanted = {.first = first,
                                    .last = first + len,
                                    .mode = random_below(3) == 0 ? QCOW_CLAIM_EXCLUSIVE
                                                                 : QCOW_CLAIM_SHARED};
        bool expected = false;
        for (unsigned i = 0; i < CLAIMS; i++)
            expected = expected || (is_held[i] && conflicts(&held[i], &wanted));
        assert_int_equal(qcow_claims_conflict(&claims, &wanted), expected);
        if (expected)
            continue;
        held[at] = wanted;
        qcow_claims_add(&claims, &held[at]);
        is_held[at] = true;
    }
    for (unsigned i = 0; i < CLAIMS; i++)
        if (is_held[i])
            qcow_claims_remove(&claims, &held[i]);
    assert_null(claims.roots[QCOW_CLAIM_SHARED]);
    assert_null(claims.roots[QCOW_CLAIM_EXCLUSIVE]);
}

static unsigned depth_of(const struct qcow_claim *claim)
{
    if (claim == NULL)
        return 0;
    unsigned left = depth_of(claim->left), right = depth_of(claim->right);
    return 1 + (left > right ? left : right);
}

TEST(claims_in_order_do_not_make_a_list)
{
    struct qcow_claims claims = {{NULL}, 0};
    static struct qcow_claim held[4096];

    for (unsigned i = 0; i < 4096; i++) {
        held[i] = (struct qcow_claim){.first = i, .last = i, .mode = QCOW_CLAIM_EXCLUSIVE};
        qcow_claims_add(&claims, &held[i]);
    }
    assert_true(depth_of(claims.roots[QCOW_CLAIM_EXCLUSIVE]) < 60);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(readers_share_and_writers_wait),
        cmocka_unit_test(many_claims_agree_with_a_plain_list),
        cmocka_unit_test(claims_in_order_do_not_make_a_list),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
