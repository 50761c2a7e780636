# SPDX-License-Identifier: Apache-2.0
"""The peer: Debian's QEMU running the same guest and doing the same job."""
import json
import pathlib
import shutil
import socket
import subprocess
import time

from console_log import ConsoleLog

QEMU = "qemu-system-x86_64"


def is_installed():
    return shutil.which(QEMU) is not None


def make_certificates(folder):
    """A CA and a certificate for localhost, in the names that QEMU's tls-creds-x509 expects."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)

    def openssl(*args):
        subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True)

    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *curve, "-keyout", "ca-key.pem", "-out", "ca-cert.pem", "-days", "2",
            "-subj", "/CN=bench CA", "-addext", "basicConstraints=critical,CA:TRUE",
            "-addext", "keyUsage=critical,keyCertSign")
    (folder / "san.cnf").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n"
                                    "keyUsage=critical,digitalSignature\n"
                                    "extendedKeyUsage=serverAuth,clientAuth\n")
    openssl("req", *curve, "-keyout", "server-key.pem", "-out", "server.csr",
            "-subj", "/CN=localhost")
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca-cert.pem", "-CAkey", "ca-key.pem",
            "-CAcreateserial", "-days", "2", "-extfile", "san.cnf", "-out", "server-cert.pem")
    shutil.copy(folder / "server-cert.pem", folder / "client-cert.pem")
    shutil.copy(folder / "server-key.pem", folder / "client-key.pem")


class Qemu:
    """One emulator process: `incoming` is None or a migration address to wait on."""

    def __init__(self, folder, name, payload, memory_mib, command_line, tls_folder=None,
                 incoming=None):
        self.folder = pathlib.Path(folder)
        self.console = ConsoleLog(self.folder / f"{name}.console")
        self.console.path.unlink(missing_ok=True)
        qmp_path = self.folder / f"{name}.qmp"
        args = [QEMU, "-accel", "kvm", "-cpu", "host,-arch-capabilities", "-m", str(memory_mib),
                "-M", "microvm,pit=on,pic=on,rtc=off,isa-serial=on", "-nodefaults",
                "-display", "none", "-serial", f"file:{self.console.path}",
                "-kernel", str(payload), "-append", command_line, "-no-reboot",
                "-qmp", f"unix:{qmp_path},server=on,wait=off"]
        if tls_folder is not None:
            role = "client" if incoming is None else "server"
            args += ["-object", f"tls-creds-x509,id=tls0,dir={tls_folder},endpoint={role},"
                     "verify-peer=on"]
        if incoming is not None:
            args += ["-incoming", "defer"]
        self.process = subprocess.Popen(args, stdin=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        self.socket = self._connect(qmp_path)
        self.stream = self.socket.makefile("rwb")
        self.stream.readline()
        self.command("qmp_capabilities")

    def _connect(self, path):
        for _ in range(500):
            try:
                connection = socket.socket(socket.AF_UNIX)
                connection.connect(str(path))
                return connection
            except OSError:
                time.sleep(0.01)
        raise TimeoutError("QEMU did not open its control socket")

    def command(self, name, **arguments):
        self.stream.write(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n")
        self.stream.flush()
        while True:
            reply = json.loads(self.stream.readline())
            if "error" in reply:
                raise RuntimeError(f"QEMU: {name}: {reply['error']['desc']}")
            if "return" in reply:
                return reply["return"]

    def set_migration(self, channels, downtime_ms):
        capabilities = [{"capability": "multifd", "state": channels > 1}]
        self.command("migrate-set-capabilities", capabilities=capabilities)
        parameters = {"max-bandwidth": 10**11, "downtime-limit": downtime_ms, "tls-creds": "tls0",
                      "tls-hostname": "localhost"}
        if channels > 1:
            parameters["multifd-channels"] = channels
        self.command("migrate-set-parameters", **parameters)

    def migrate(self, address, timeout_s=120):
        """Seconds from the command to the end, and QEMU's own account."""
        start = time.monotonic()
        self.command("migrate", uri=address)
        while time.monotonic() - start < timeout_s:
            info = self.command("query-migrate")
            if info.get("status") == "completed":
                return time.monotonic() - start, info
            if info.get("status") in ("failed", "cancelled"):
                raise RuntimeError(f"QEMU: migration {info}")
            time.sleep(0.005)
        raise TimeoutError("QEMU: the migration does not end")

    def close(self):
        self.process.kill()
        self.process.wait()
        self.stream.close()
        self.socket.close()


def migrate_once(folder, payload, memory_mib, command_line, channels, downtime_ms, port):
    """One migration on one host over TLS. Returns (total_s, downtime_ms, clock report, bytes)."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tls_folder = folder / "tls"
    if not tls_folder.exists():
        make_certificates(tls_folder)
    source = Qemu(folder, "source", payload, memory_mib, command_line, tls_folder)
    target = None
    try:
        source.console.wait_ready()
        target = Qemu(folder, "target", payload, memory_mib, command_line, tls_folder, "defer")
        source.set_migration(channels, downtime_ms)
        target.set_migration(channels, downtime_ms)
        target.command("migrate-incoming", uri=f"tcp:127.0.0.1:{port}")
        total_s, info = source.migrate(f"tcp:127.0.0.1:{port}")
        report = target.console.wait_for(lambda: target.console.reports("clock"), "clock report")
        return total_s, info["downtime"], report[0], info["ram"]["transferred"]
    finally:
        source.close()
        if target is not None:
            target.close()
