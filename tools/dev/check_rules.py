#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks the house rules that a compiler does not see.

Patterns are looked for in code or in comments, never in both: strings and comments are blanked
before the code rules run. A breach that is right after all gets a line in EXCEPTIONS, with its
reason; an exception that excuses nothing is reported too.
"""
import fnmatch
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
LAYER_FOLDERS = ("base", "proto", "storage", "control", "vmm", "snapshot", "migration", "tools")
FILE_LINES_MAX = 600
HEADER_LINES_MAX = 150
FUNCTION_LINES_MAX = 70

# Programs of their own, tests and measurements, may print and exit.
PROGRAMS = ("tools/*", "tests/*", "bench/*", "*_test.c", "*_fuzz.c")

# name, where to look ("code" or "comments"), what is refused, files where it is allowed, remedy
RULES = [
    ("no dying below tools", "code", r"\b(exit|abort|errx?)\s*\(", (*PROGRAMS, "base/*"),
     "return a struct err"),
    ("no printing below tools", "code",
     r"\b(v?printf|perror|puts|putchar)\s*\(|\bfprintf\s*\(\s*std", PROGRAMS,
     "return a struct err, or log at the edge"),
    ("one door to KVM", "code", r"\bioctl\s*\(",
     ("vmm/kvm/*", "vmm/memory/page_faults.c", "tests/*", "bench/*"), "go through vmm/kvm/"),
    ("one door to guest memory", "code", r"\bmemory->host\b", ("vmm/memory/guest_memory.c",),
     "use guest_read, guest_write or guest_span"),
    ("no casts onto buffers", "code",
     r"__attribute__\s*\(\(\s*packed|\((const )?struct \w+ \*\)\s*buf", (),
     "read with struct reader"),
    ("no sleeping", "code", r"\b(u|nano|clock_nano)?sleep\s*\(", (), "wait for an event or a timer"),
    ("no raw mutex", "code", r"\bpthread_(mutex|cond|rwlock|spin)_", ("base/lock.[ch]",),
     "use base/lock.h"),
    ("no raw thread", "code", r"\bpthread_create\b", ("base/thread.c",), "use base/thread.h"),
    ("no goto", "code", r"\bgoto\b", (), "release by scope: CLEANUP and TAKE_PTR"),
    ("no history in comments", "comments",
     r"(?i)\bno longer\b|\bused to\b|\bpreviously\b|\bworkaround for #|\bissue #?\d+", (),
     "say what is, and why"),
]

# In any text file: where this tree happens to stand, and where packages happen to come from.
MACHINE = re.compile(r"(?<![\w.$}])/wor[k]/|/far[m]/|/bash_job[s]|\.librar[y]/|debian\.or[g]/debian|"
                     r"snapshot\.debian\.or[g]|pypi\.or[g]|registry\.npmj[s]")

# rule, file, reason
EXCEPTIONS = [
    ("one door to KVM", "vmm/devices/virtio/net_tap.c", "a tap interface is set up by ioctls"),
    ("no printing below tools", "base/assert.h", "the last words of a crash"),
    ("file size", "base/bytes.h", "two cursors of inline functions that belong together"),
]

used_exceptions = set()


def split_c(text):
    """Returns (code, comments): the text with the other half, and all strings, blanked."""
    token = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL)
    code, comments, end = [], [], 0

    def blank(piece):
        return re.sub(r"[^\n]", " ", piece)

    for match in token.finditer(text):
        between, piece = text[end:match.start()], match.group()
        code += [between, blank(piece)]
        comments += [blank(between), piece if piece.startswith("/") else blank(piece)]
        end = match.end()
    return "".join(code) + text[end:], "".join(comments) + blank(text[end:])


def matches_any(name, patterns):
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def is_excused(rule, name):
    for row in EXCEPTIONS:
        if row[0] == rule and fnmatch.fnmatch(name, row[1]):
            used_exceptions.add(row)
            return True
    return False


def pattern_breaches(name, code, comments):
    for rule, where, pattern, allowed, remedy in RULES:
        if matches_any(name, allowed):
            continue
        for match in re.finditer(pattern, code if where == "code" else comments):
            if is_excused(rule, name):
                break
            line = code.count("\n", 0, match.start()) + 1
            yield f"{name}:{line}: {rule}: '{match.group().strip()}'; {remedy}"


def size_breaches(name, text):
    lines = text.splitlines()
    limit = HEADER_LINES_MAX if name.endswith(".h") else FILE_LINES_MAX
    if len(lines) > limit and not is_excused("file size", name):
        yield f"{name}: file size: {len(lines)} lines; the most is {limit}; split it by noun"
    opened = None
    for number, line in enumerate(lines, 1):
        if line == "{":
            opened = number
        elif line.startswith("}") and opened is not None:
            length = number - opened - 1
            if length > FUNCTION_LINES_MAX and not is_excused("function size", name):
                yield (f"{name}:{opened}: function size: {length} lines; "
                       f"the most is {FUNCTION_LINES_MAX}")
            opened = None


def test_breaches(path, name, text, names):
    """A source has its test beside it, or says in its file comment where it is tested: by a path,
    or by a file's name, since those are unique."""
    if not name.startswith(tuple(f"{folder}/" for folder in LAYER_FOLDERS)):
        return
    if name.endswith(("_test.c", "_fuzz.c", "_fake.c")) or path.with_name(path.stem + "_test.c").exists():
        return
    head = text.split("*/", 2)
    claim = re.search(r"Tested by:(.*)", head[1] if len(head) > 2 else "", re.DOTALL)
    if claim is None:
        if not is_excused("tested", name):
            yield f"{name}: tested: no {path.stem}_test.c beside it and no 'Tested by:' line"
        return
    for word in re.findall(r"\b[\w./]+_(?:test|fuzz)\.\w+|\btests/[\w./]*\w", claim.group(1)):
        if not (ROOT / word).exists() and not any(known.endswith("/" + word) for known in names):
            yield f"{name}: tested: 'Tested by:' names {word}, which does not exist"


def name_breaches(names):
    by_base = {}
    for name in names:
        path = pathlib.PurePath(name)
        if re.search(r"_(util|utils|misc|common|helpers?)$", path.stem):
            yield f"{name}: file name: says nothing about what it holds"
        if path.name != "main.c":
            by_base.setdefault(path.name, []).append(name)
    for base, places in by_base.items():
        if len(places) > 1 and not is_excused("unique names", base):
            yield f"{', '.join(places)}: unique names: one name for {len(places)} files"


def link_breaches(path, name, text):
    for match in re.finditer(r"\]\((?!https?:|#)([^)#\s]+)", text):
        if not (path.parent / match.group(1)).exists():
            yield f"{name}: links: {match.group(1)} does not exist"


def has_licence_line(text):
    return any("SPDX-License-Identifier: Apache-2.0" in line for line in text.split("\n", 2)[:2])


def tracked_files():
    """What git knows or would add; without git, every file outside build folders."""
    listing = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"],
                             cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode == 0:
        return sorted(name for name in set(listing.stdout.splitlines()) if (ROOT / name).is_file())
    return sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob("*")
                  if path.is_file() and path.relative_to(ROOT).parts[0] not in ("build", ".git"))


def breaches():
    names = tracked_files()
    yield from name_breaches([name for name in names if name.endswith((".c", ".h", ".proto"))])
    for name in names:
        path = ROOT / name
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        for match in MACHINE.finditer(text):
            if not is_excused("machine paths", name):
                line = text.count("\n", 0, match.start()) + 1
                yield f"{name}:{line}: machine paths: '{match.group()}'"
        if name.endswith((".c", ".h", ".proto", ".S", ".asl", ".py", ".sh")):
            if not has_licence_line(text) and not is_excused("licence line", name):
                yield f"{name}: licence line: no SPDX line at the top"
        if name.endswith(".md"):
            yield from link_breaches(path, name, text)
        if name.endswith((".c", ".h")):
            yield from pattern_breaches(name, *split_c(text))
            yield from size_breaches(name, text)
        if name.endswith(".c"):
            yield from test_breaches(path, name, text, names)
        if name.endswith((".py", ".sh")) and len(text.splitlines()) > FILE_LINES_MAX:
            yield f"{name}: file size: more than {FILE_LINES_MAX} lines"
    for row in EXCEPTIONS:
        if row not in used_exceptions and any(fnmatch.fnmatch(name, row[1]) for name in names):
            yield f"tools/dev/check_rules.py: exception '{row[0]}' for {row[1]} excuses nothing"


if __name__ == "__main__":
    found = list(breaches())
    print("\n".join(found) if found else "rules hold")
    sys.exit(bool(found))
