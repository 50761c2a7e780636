#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Reads a JUnit file of ctest: prints what failed and why, what was skipped and why, and counts."""

import re
import sys
import xml.etree.ElementTree as ElementTree

OUTPUT_LINES_MAX = 60


def last_words(text):
    """The last line that a test printed, which for a skipped one is its reason."""
    lines = [re.sub(r"^\[ *\w+ *\] ?", "", line).strip() for line in (text or "").splitlines()]
    lines = [line for line in lines if line and "CTEST" not in line]
    return lines[-1] if lines else "it does not say why"


def main():
    """Counts each test of ctest as one."""
    try:
        cases = ElementTree.parse(sys.argv[1]).getroot().iter("testcase")
    except (OSError, ElementTree.ParseError) as error:
        print(f"ctest left no results: {error}\n0 passed, 1 failed, 0 skipped")
        return
    passed = failed = skipped = 0
    for case in cases:
        name, output = case.get("name"), case.findtext("system-out") or ""
        seconds = float(case.get("time") or 0)
        if case.get("status") == "run":
            passed += 1
        elif case.find("skipped") is not None and "77" in case.find("skipped").get("message", ""):
            skipped += 1
            print(f"skipped: {name}: {last_words(output)}")
        else:
            failed += 1
            print(f"FAILED: {name} after {seconds:.1f} s")
            print("\n".join("    " + line for line in output.splitlines()[-OUTPUT_LINES_MAX:]))
    print(f"{passed} passed, {failed} failed, {skipped} skipped")


if __name__ == "__main__":
    main()
