# SPDX-License-Identifier: Apache-2.0
"""One cell of the matrix: an image is made, changed by turns, and judged after each turn."""

from ferrydisk.model import SECTOR, Model
from ferrydisk.programs import Exerciser, Failure, qemu_img, qemu_io, qemu_nbd

IMAGE = "disk.qcow2"
MODEL = "model.raw"
BASE = "base.raw"
REQUEST_MAX = 300 << 10
WALKED_BYTES_MAX = 2 << 40


def base_bytes(options):
    """How long the backing file (or what is compressed into the image) is."""
    size = options.size()
    if options.backing == "none" and options.content == "empty":
        return 0
    if options.backing == "short raw":
        return max(512, size // 3 // 4096 * 4096) if size <= 1 << 24 else 1 << 20
    if options.backing == "long raw":
        return min(size, 4 << 20) + (1 << 20)
    return min(size, 4 << 20)


class Cell:
    """Image, model, and what is done to both."""

    def __init__(self, folder, options, random):
        self.folder = folder
        self.options = options
        self.random = random
        self.stamp = 1 << 32
        self.done = 0
        self.snapshots = {}
        self.exerciser = Exerciser(folder)
        self.model = Model(folder, MODEL, options.size())
        self.backing = "-"

    def finish(self):
        """The exerciser must not have died."""
        self.model.file.close()
        return self.exerciser.finish()

    # -- making it

    def make_base(self):
        """Text that compresses, noise that does not, holes; gives name and format of the file."""
        length = base_bytes(self.options)
        if length == 0:
            return None
        data = bytearray(length)
        for at in range(0, length, 32 << 10):
            part = min(32 << 10, length - at)
            kind = self.random.randrange(4)
            if kind == 0:
                data[at:at + part] = self.random.randbytes(part)
            elif kind < 3:
                data[at:at + part] = (b"%08d lines of text\n" % at * (part // 20 + 1))[:part]
        (self.folder / BASE).write_bytes(data)
        self.model.fill(data)
        kind = self.options.backing
        if kind in ("none", "raw", "short raw", "long raw"):
            return BASE, "raw"
        words = {"zlib": ("-c",), "zstd": ("-c", "-o", "compression_type=zstd,cluster_size=32k"),
                 "plain 4k": ("-o", "cluster_size=4k,compat=0.10"),
                 "extended": ("-o", "extended_l2=on,cluster_size=128k")}[kind]
        qemu_img(self.folder, "convert", "-f", "raw", "-O", "qcow2", *words, BASE, "base.qcow2")
        return "base.qcow2", "qcow2"

    def qemu_options(self):
        """What follows -o."""
        options = self.options
        words = [f"compat={'0.10' if options.version == 2 else '1.1'}",
                 f"cluster_size={1 << options.cluster_bits}"]
        if options.version == 3:
            words += [f"refcount_bits={options.refcount_bits}"]
        words += ["lazy_refcounts=on"] * options.has_lazy_refcounts
        words += ["compression_type=zstd"] * options.is_zstd
        words += ["extended_l2=on"] * options.is_extended
        if options.preallocation != "off":
            words += [f"preallocation={options.preallocation}"]
        return ",".join(words)

    def make(self):
        """By QEMU or by us."""
        options = self.options
        base = self.make_base()
        if options.content == "compressed":
            qemu_img(self.folder, "convert", "-f", "raw", "-O", "qcow2", "-c", "-o",
                     self.qemu_options(), BASE, IMAGE)
            qemu_img(self.folder, "resize", "-f", "qcow2", IMAGE, options.size())
            return
        if base is not None:
            self.backing = BASE
        if options.creator == "qemu":
            words = ["-b", base[0], "-F", base[1]] if base else []
            qemu_img(self.folder, "create", "-f", "qcow2", *words, "-o", self.qemu_options(),
                     IMAGE, options.size())
            return
        words = [f"size={options.size()}", f"version={options.version}",
                 f"cluster_bits={options.cluster_bits}", f"refcount_bits={options.refcount_bits}",
                 f"lazy_refcounts={int(options.has_lazy_refcounts)}",
                 f"zstd={int(options.is_zstd)}", f"extended_l2={int(options.is_extended)}",
                 f"static={int(options.is_static)}", f"preallocation={options.preallocation}"]
        if base:
            words += [f"backing={base[0]}", f"backing_format={base[1]}"]
        self.exerciser.do("create", IMAGE, *words)

    # -- changing it

    def place(self):
        """Offset and length of a request; now and then the end, or much."""
        start, length = self.random.choice(self.model.windows())
        limit = REQUEST_MAX if self.random.random() < 0.25 else 9000
        size = min(self.random.randrange(1, limit // SECTOR + 1) * SECTOR, length)
        offset = start + self.random.randrange((length - size) // SECTOR + 1) * SECTOR
        if self.random.random() < 0.1:
            offset = start + length - size
        return offset, size

    def operations(self, count):
        """Yields kind, offset, length; changes the model as it goes."""
        kinds = ("write",) * 8 + ("zero", "unmap", "discard", "discard", "flush", "reopen")
        for _ in range(count):
            self.done += 1
            kind = self.random.choice(kinds)
            if not self.model.windows():
                kind = self.random.choice(("flush", "reopen"))
            if kind in ("flush", "reopen"):
                yield kind, 0, 0
                continue
            offset, length = self.place()
            yield kind, offset, length
            if kind in ("zero", "unmap"):
                self.model.put(offset, bytes(length))
            elif kind == "discard":
                self.model.discard(offset, length)

    def change_by_us(self, count):
        """Requests as a guest makes them."""
        do = self.exerciser.do
        do("open", IMAGE, "qcow2", "rw")
        for kind, offset, length in self.operations(count):
            if kind == "write":
                do(kind, offset, length, self.stamp)
                self.model.write_stamps(offset, length, self.stamp)
                self.stamp += length // SECTOR
            elif kind == "reopen":
                do("close")
                do("open", IMAGE, "qcow2", "rw")
            elif kind == "flush":
                do("flush")
            else:
                do(kind, offset, length)
        do("close")

    def change_by_qemu(self, count):
        """All in one process; reopening is a process more."""
        commands = []
        for kind, offset, length in self.operations(count):
            if kind == "write":
                pattern = self.random.randrange(1, 256)
                commands.append(f"write -P {pattern} {offset} {length}")
                self.model.put(offset, bytes([pattern]) * length)
            elif kind in ("flush", "reopen"):
                commands.append("flush")
            else:
                command = {"zero": "write -z", "unmap": "write -z -u", "discard": "discard"}[kind]
                commands.append(f"{command} {offset} {length}")
        qemu_io(self.folder, IMAGE, commands)

    def snapshot(self, kind, name):
        """By QEMU or by us."""
        if self.random.random() < 0.5:
            qemu_img(self.folder, "snapshot", f"-{kind[0]}", name, IMAGE)
        else:
            self.exerciser.do("snapshot", kind, IMAGE, name)

    def change_snapshots(self):
        """Creates one up to as many as wanted, or applies or deletes one."""
        kind = self.random.choice(("create", "create", "apply", "delete"))
        if not self.snapshots or (kind == "create" and
                                  len(self.snapshots) < self.options.snapshots):
            name = f"s{self.done}"
            self.snapshot("create", name)
            self.model.copy_to(f"{name}.raw")
            self.snapshots[name] = self.model.size
            return
        name = self.random.choice(sorted(self.snapshots))
        if kind == "apply":
            self.snapshot("apply", name)
            self.model.take_from(f"{name}.raw", self.snapshots[name])
        else:
            self.snapshot("delete", name)
            del self.snapshots[name]
            (self.folder / f"{name}.raw").unlink()

    # -- judging it

    def check(self):
        """Both checkers: no error, no leak."""
        errors, leaks, hazards, first = self.exerciser.do("check", IMAGE)[-1].split(" ", 3)
        if (errors, leaks, hazards) != ("0", "0", "0"):
            raise Failure(f"the independent checker finds {errors} errors, {leaks} leaks, "
                          f"{hazards} hazards: {first}")
        qemu_img(self.folder, "check", "-q", "-f", "qcow2", IMAGE)

    def view(self, snapshot, raw, size):
        """The independent reader; gives sectors that are zeros and not in the raw file."""
        zeroes = []
        for start, length in Model.windows(_Sized(size)):
            zeroes += self.exerciser.do("view", IMAGE, snapshot, self.backing, raw, start,
                                        length)[:-1]
        return map(int, zeroes)

    def judge(self):
        """Three readers see what the model holds, in the image and in its snapshots."""
        self.check()
        wrong = self.model.settle(self.view("-", MODEL, self.model.size))
        if wrong is not None:
            raise Failure(f"sector {wrong} holds zeros")
        self.judge_by_qemu()
        for index, (name, size) in enumerate(self.snapshots.items()):
            if any(True for _ in self.view(index, f"{name}.raw", size)):
                raise Failure(f"snapshot {name} holds zeros where it should not")

    def judge_by_qemu(self):
        """All of the disk, or of one that QEMU walks through for minutes what was ever touched."""
        if self.model.size <= WALKED_BYTES_MAX:
            qemu_img(self.folder, "compare", "-q", "-f", "qcow2", "-F", "raw", IMAGE, MODEL)
            return
        with qemu_nbd(self.folder, IMAGE) as path:
            for start, length in self.model.windows():
                window = f"driver=raw,offset={start},size={length}"
                qemu_img(self.folder, "compare", "-q", "--image-opts",
                         f"{window},file.driver=nbd,file.server.type=unix,file.server.path={path}",
                         f"{window},file.driver=file,file.filename={MODEL}")

    def judge_by_us(self):
        """Our own reader."""
        self.exerciser.do("open", IMAGE, "qcow2", "ro")
        try:
            for start, length in self.model.windows():
                self.exerciser.do("compare", MODEL, start, length)
        finally:
            self.exerciser.do("close")

    def run(self, turns, operations):
        """Makes the image, and lets both change it in turns."""
        self.make()
        self.judge()
        self.judge_by_us()
        for turn in range(turns):
            ours = (turn + self.done) % 2 == 0 if turn else self.random.random() < 0.5
            if ours:
                self.change_by_us(operations)
            else:
                self.change_by_qemu(operations)
            self.judge()
            if self.options.snapshots:
                self.change_snapshots()
                self.judge()
            self.judge_by_us()


class _Sized:
    """As much of a model as its windows need."""

    def __init__(self, size):
        self.size = size
