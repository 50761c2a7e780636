# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with a test."""


class Failure(AssertionError):
    """The programs under test did something wrong."""
