# SPDX-License-Identifier: Apache-2.0
"""A folder that becomes the file system of a lab machine."""

import os
import pathlib
import re
import shutil
import subprocess

from ferrylab import shell
from ferrylab.trouble import LabTrouble


def shared_libraries(program):
    """The libraries that a program loads, and its loader; none for a static program."""
    listing = subprocess.run(["ldd", program], text=True, capture_output=True, check=False).stdout
    missing = re.findall(r"(\S+) => not found", listing)
    if missing:
        raise LabTrouble(f"'{program}' needs {', '.join(missing)}, which this machine lacks")
    return re.findall(r"(/\S+) \(0x", listing)


class Tree:
    """Files gathered under one folder."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)

    def add(self, source, target):
        """Copies a file or a folder; `target` is relative to the root of the tree."""
        path = self.folder / target
        path.parent.mkdir(parents=True, exist_ok=True)
        if os.path.isdir(source):
            shutil.copytree(source, path)
        else:
            shutil.copy2(source, path)

    def add_program(self, program, folder, libraries_folder):
        """Copies a program and the libraries that it needs."""
        self.add(program, f"{folder}/{os.path.basename(program)}")
        for library in shared_libraries(program):
            if not (self.folder / libraries_folder / os.path.basename(library)).exists():
                self.add(library, f"{libraries_folder}/{os.path.basename(library)}")

    def add_modules(self, kernel, names):
        """Copies kernel modules, those that they depend on, and the index of them."""
        base = f"lib/modules/{kernel.version}"
        for path in kernel.modules_with_dependencies(names):
            self.add(kernel.modules / path, f"{base}/{path}")
        for index in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
            self.add(kernel.modules / index, f"{base}/{index}")
        shell.run("depmod", "-b", self.folder, kernel.version)

    def write(self, target, text, mode=0o644):
        """Creates a file."""
        path = self.folder / target
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def link(self, target, points_to):
        """Creates a symbolic link."""
        path = self.folder / target
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(points_to)

    def make_folders(self, *targets):
        """Creates empty folders."""
        for target in targets:
            (self.folder / target).mkdir(parents=True, exist_ok=True)

    def pack_initramfs(self, image):
        """Writes an uncompressed cpio archive: unpacking costs more than reading here."""
        draft = pathlib.Path(f"{image}.draft")
        with open(draft, "wb") as out:
            names = subprocess.run(["find", "."], cwd=self.folder, capture_output=True, check=True)
            subprocess.run(["cpio", "-o", "-H", "newc", "-R", "0:0", "--quiet"], cwd=self.folder,
                           input=names.stdout, stdout=out, check=True)
        draft.rename(image)

    def pack_squashfs(self, image):
        """Writes a read-only compressed file system."""
        draft = pathlib.Path(f"{image}.draft")
        shell.run("mksquashfs", self.folder, draft, "-noappend", "-all-root", "-comp", "lz4",
                  "-no-progress", "-quiet")
        draft.rename(image)
