# SPDX-License-Identifier: Apache-2.0
"""Where things lie: the repository, the lab's cache, and the build whose programs are tested."""

import os
import pathlib

LAB = pathlib.Path(__file__).resolve().parent.parent
REPOSITORY = LAB.parent.parent
CACHE = pathlib.Path(os.environ.get("FERRY_LAB_CACHE", REPOSITORY / "build" / "lab"))


def preset_folder(preset):
    """The build folder of a CMake preset."""
    return REPOSITORY / "build" / preset
