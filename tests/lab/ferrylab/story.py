# SPDX-License-Identifier: Apache-2.0
"""Tells a person what a scenario does and what came of it: numbered steps and measured figures."""

import sys
import time


class Story:
    """The account of one scenario, printed while it happens."""

    def __init__(self, out=sys.stdout):
        self.out = out
        self.count = 0
        self.started = time.monotonic()
        self.figures = []  # (what, value, unit)

    def say(self, text):
        """A plain line."""
        print(text, file=self.out, flush=True)

    def step(self, text):
        """The next numbered step."""
        self.count += 1
        seconds = time.monotonic() - self.started
        self.say(f"[{seconds:6.1f} s] {self.count}. {text}")

    def detail(self, text):
        """What came of the step."""
        self.say(f"{'':11} {text}")

    def figure(self, what, value, unit):
        """Remembers a measured value for the table, and says it."""
        self.figures.append((what, value, unit))
        self.detail(f"{what}: {value:.0f} {unit}" if abs(value) >= 100 or value == int(value)
                    else f"{what}: {value:.1f} {unit}")


def print_table(rows, out=sys.stdout):
    """Prints rows of text with aligned columns; the first row is the heading."""
    widths = [max(len(str(row[column])) for row in rows) for column in range(len(rows[0]))]
    for number, row in enumerate(rows):
        cells = [str(cell).ljust(width) for cell, width in zip(row, widths)]
        print("  " + "  ".join(cells).rstrip(), file=out)
        if number == 0:
            print("  " + "  ".join("-" * width for width in widths), file=out)
    out.flush()
