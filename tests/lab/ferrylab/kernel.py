# SPDX-License-Identifier: Apache-2.0
"""The stock Debian kernel that lab hosts and guests boot: fetched from the archive, not installed.

The cloud kernel of Debian 12 is a package like any other to apt, so it comes from the mirror that
the machine is set up with. It is unpacked under the cache and never touches the system.
"""

import pathlib
import re
import shutil
import tempfile

from ferrylab import paths, shell
from ferrylab.trouble import LabTrouble, LabUnavailable

META_PACKAGE = "linux-image-cloud-amd64"


class Kernel:
    """An unpacked kernel package."""

    def __init__(self, folder):
        self.folder = folder
        self.image = next((folder / "boot").glob("vmlinuz-*"))
        self.version = self.image.name.removeprefix("vmlinuz-")
        self.modules = folder / "lib" / "modules" / self.version

    def modules_with_dependencies(self, names):
        """Paths, relative to the modules folder, of the named modules and what they need."""
        needs = {}
        for line in (self.modules / "modules.dep").read_text().splitlines():
            path, _, rest = line.partition(":")
            needs[path] = rest.split()
        by_name = {pathlib.Path(path).name.split(".ko")[0].replace("-", "_"): path
                   for path in needs}
        missing = [name for name in names if name not in by_name]
        if missing:
            raise LabTrouble(f"kernel {self.version} has no module {', '.join(missing)}")
        wanted = {by_name[name] for name in names}
        return sorted(wanted.union(*(needs[path] for path in wanted)))


def newest_package():
    """The package that the meta package stands for at present."""
    listing = shell.run("apt-cache", "depends", META_PACKAGE)
    found = re.search(r"Depends: (linux-image-\S+-cloud-amd64)", listing)
    if not found:
        raise LabUnavailable(f"apt does not know '{META_PACKAGE}'; run 'apt-get update' first")
    return found.group(1)


def fetch():
    """Returns the newest kernel, from the cache if it is there."""
    package = newest_package()
    policy = shell.run("apt-cache", "policy", package)
    version = re.search(r"Candidate: (\S+)", policy).group(1)
    folder = paths.CACHE / "kernel" / f"{package}_{version.replace(':', '_')}"
    if not folder.is_dir():
        try:
            unpack_package(package, folder)
        except LabTrouble as trouble:
            raise LabUnavailable(f"can not fetch {package}: {trouble}") from trouble
    return Kernel(folder)


def unpack_package(package, folder):
    """Downloads and unpacks beside `folder`, then renames: a half-done one is never taken."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        shell.run("apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", package, cwd=work)
        draft = pathlib.Path(work) / "root"
        shell.run("dpkg-deb", "-x", next(pathlib.Path(work).glob("*.deb")), draft)
        kernel = Kernel(draft)
        shell.run("depmod", "-b", draft, kernel.version)
        shutil.move(draft, folder)
