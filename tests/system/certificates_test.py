#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Hosts that do not know each other move nothing, and say why."""

import pathlib
import shutil

from ferrytest.case import Case, main, needs
from ferrytest.receiver import Receiver


@needs("vm-migrate", "vm-receive", "vm-certs", "vm-ctl")
class Certificates(Case):
    """Each test spoils one certificate; the guest must not notice."""

    def setUp(self):
        super().setUp()
        self.source, self.target = self.hosts()
        self.guest = self.boot(self.source, memory=32)

    def config(self, host):
        """Where a host's certificates are."""
        return pathlib.Path(host.env["FERRY_CONFIG_DIR"])

    def must_refuse(self, *words):
        """The move fails; the guest goes on; the target has nothing."""
        receiver = Receiver(self.target)
        output = self.source.refuse("vm-migrate", "m", receiver.address())
        for word in words:
            self.assertIn(word, output)
        self.assertEqual(self.source.state("m"), "running")
        self.target.wait_for_processes(0)
        self.guest.check(1)
        return output

    def replace(self, host, authority, name):
        """Gives a host a certificate by another authority, or for another name."""
        folder = self.config(host)
        authority.run("vm-certs", "issue", name, "--out", self.folder / "issued")
        for file in (self.folder / "issued").iterdir():
            (folder / file.name).unlink(missing_ok=True)
            shutil.copy(file, folder / file.name)

    def test_a_target_of_an_unknown_authority(self):
        stranger = self.host("stranger")
        stranger.run("vm-certs", "init")
        self.replace(self.target, stranger, "localhost")
        self.must_refuse("certificate")

    def test_a_source_of_an_unknown_authority(self):
        stranger = self.host("stranger")
        stranger.run("vm-certs", "init")
        self.replace(self.source, stranger, "localhost")
        self.must_refuse("certificate")

    def test_a_target_with_another_name(self):
        self.replace(self.target, self.source, "elsewhere.example")
        self.must_refuse("localhost")

    def test_a_source_without_certificates(self):
        shutil.rmtree(self.config(self.source))
        self.must_refuse("vm-certs")

    def test_a_target_without_certificates_does_not_listen(self):
        shutil.rmtree(self.config(self.target))
        output = self.target.refuse("vm-receive", "--listen", "127.0.0.1:0")
        self.assertIn("vm-certs", output)

    def test_an_expired_certificate(self):
        if shutil.which("openssl") is None:
            self.skipTest("openssl is not installed")
        authority, folder = self.config(self.source), self.config(self.target)
        request = self.folder / "request.pem"
        self.source.run("openssl", "req", "-new", "-newkey", "ec", "-pkeyopt",
                        "ec_paramgen_curve:prime256v1", "-nodes", "-keyout",
                        folder / "host-key.pem", "-out", request, "-subj", "/CN=localhost",
                        "-addext", "subjectAltName=DNS:localhost",
                        "-addext", "extendedKeyUsage=serverAuth,clientAuth")
        self.source.run("openssl", "x509", "-req", "-in", request, "-CA", authority / "ca.pem",
                        "-CAkey", authority / "ca-key.pem", "-copy_extensions", "copy",
                        "-days", "-1", "-out", folder / "host.pem")
        self.must_refuse("expired")


if __name__ == "__main__":
    main()
