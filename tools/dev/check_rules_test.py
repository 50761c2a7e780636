#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Does each rule fire where it should, and only there?"""
import unittest

import check_rules


def breaches_of(name, text):
    return [line.split(": ")[1] for line in
            check_rules.pattern_breaches(name, *check_rules.split_c(text))]


class PatternTest(unittest.TestCase):
    def test_a_breach_is_named_with_its_line(self):
        found = list(check_rules.pattern_breaches(
            "vmm/x.c", *check_rules.split_c("int a;\n    exit(1);\n")))
        self.assertEqual(len(found), 1)
        self.assertTrue(found[0].startswith("vmm/x.c:2: no dying below tools"))

    def test_each_code_rule_fires(self):
        for code, rule in (
                ("abort();", "no dying below tools"),
                ('printf("x");', "no printing below tools"),
                ("fprintf(stderr, x);", "no printing below tools"),
                ("ioctl(fd, 1);", "one door to KVM"),
                ("memory->host[0] = 1;", "one door to guest memory"),
                ("struct s { } __attribute__((packed));", "no casts onto buffers"),
                ("x = (const struct head *)buffer;", "no casts onto buffers"),
                ("usleep(1);", "no sleeping"),
                ("pthread_mutex_lock(&m);", "no raw mutex"),
                ("pthread_create(&t, 0, f, 0);", "no raw thread"),
                ("goto out;", "no goto")):
            self.assertEqual(breaches_of("vmm/x.c", code), [rule], code)

    def test_names_that_only_contain_a_word_are_fine(self):
        self.assertEqual(breaches_of("vmm/x.c", "kvm_exit(1); snprintf(a); kvm_ioctl(x); f_err(1);"), [])

    def test_code_rules_ignore_comments_and_strings(self):
        self.assertEqual(breaches_of("vmm/x.c", '/* exit(1) */ x = "goto \\" exit(1)"; // abort()'), [])

    def test_comment_rules_ignore_code(self):
        self.assertEqual(breaches_of("vmm/x.c", 'x = "no longer"; // is no longer here'),
                         ["no history in comments"])

    def test_programs_may_print(self):
        self.assertEqual(breaches_of("tools/vm-x/main.c", 'printf("x"); exit(1);'), [])


class SizeTest(unittest.TestCase):
    def test_a_long_function_is_found(self):
        body = "    x++;\n" * (check_rules.FUNCTION_LINES_MAX + 1)
        found = list(check_rules.size_breaches("vmm/x.c", "void f(void)\n{\n" + body + "}\n"))
        self.assertEqual(len(found), 1)

    def test_a_function_at_the_limit_is_fine(self):
        body = "    x++;\n" * check_rules.FUNCTION_LINES_MAX
        self.assertEqual(list(check_rules.size_breaches("vmm/x.c", "void f(void)\n{\n" + body + "}\n")), [])

    def test_a_header_has_a_lower_limit(self):
        text = "int x;\n" * 200
        self.assertEqual(len(list(check_rules.size_breaches("vmm/x.h", text))), 1)
        self.assertEqual(list(check_rules.size_breaches("vmm/x.c", text)), [])


class NameTest(unittest.TestCase):
    def test_two_files_of_one_name_are_found(self):
        self.assertEqual(len(list(check_rules.name_breaches(["a/x.c", "b/x.c", "a/main.c", "b/main.c"]))), 1)

    def test_names_that_say_nothing_are_found(self):
        self.assertEqual(len(list(check_rules.name_breaches(["a/string_utils.c"]))), 1)


if __name__ == "__main__":
    unittest.main()
