/* SPDX-License-Identifier: Apache-2.0 */
#include "base/checked_math.h"
#include "base/unit_test.h"
#include "migration/host_address.h"

TEST(addresses_by_table)
{
    static const struct {
        const char *text;
        const char *host;
        uint16_t port;
    } rows[] = {
        {"host-b", "host-b", 7420},          {"host-b:99", "host-b", 99},
        {"10.0.0.2:7421", "10.0.0.2", 7421}, {"[::1]:5", "::1", 5},
        {"[fe80::1]", "fe80::1", 7420},      {"fe80::1", "fe80::1", 7420},
    };

    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        struct host_address address;
        ASSERT_OK(host_address_parse(rows[i].text, &address));
        assert_string_equal(address.host, rows[i].host);
        assert_int_equal(address.port, rows[i].port);
    }
}

TEST(what_is_no_address_is_refused)
{
    static const char *const texts[] = {"", ":7420", "[::1", "host:port", "host:70000", "[]:1"};

    for (size_t i = 0; i < ARRAY_COUNT(texts); i++) {
        struct host_address address;
        assert_fails(host_address_parse(texts[i], &address), ERR_INVALID);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_by_table),
        cmocka_unit_test(what_is_no_address_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
