"""``flux-api c2pa-cert``: files to try content credentials with."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from flux_api.commands.program import program
from flux_api.commands.transport import Failure
from flux_api.images.signing import open_signer
from tests.commands.program import run
from tests.support.credentials import need_c2pa


def test_it_makes_a_pair_that_signs_and_says_how_to_use_it(tmp_path):
    need_c2pa()
    done = run(tmp_path, "c2pa-cert", "my files")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "my files"
    assert done.stdout.decode().splitlines() == [
        f"export FLUX_C2PA_CERT='{folder}/c2pa-cert.pem'",
        f"export FLUX_C2PA_KEY='{folder}/c2pa-key.pem'",
    ]
    key = folder / "c2pa-key.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    open_signer(folder / "c2pa-cert.pem", key, None)
    day = 24 * 3600
    # Where the clock is behind, too, and for a year.
    assert [is_good(folder, after) for after in (-3000, 0, 364 * day, 366 * day)] == [
        *(True, True, True, False)
    ]


def test_what_a_certificate_may_do_binds_every_program(tmp_path):
    """RFC 5280: who does not know a critical extension refuses the certificate."""
    need_c2pa()
    from cryptography import x509

    invoke(tmp_path)
    for name in ("c2pa-cert.pem", "c2pa-ca.pem"):
        made = x509.load_pem_x509_certificate((tmp_path / name).read_bytes())
        critical = {type(one.value) for one in made.extensions if one.critical}
        assert critical == {x509.BasicConstraints, x509.KeyUsage}


def is_good(folder, after):
    """Whether OpenSSL, as strict as it can be, finds that this may sign ``after`` so
    many seconds from now: the same kind of certificate signs mails."""
    at = str(round(time.time()) + after)
    command = ["openssl", "verify", "-x509_strict", "-purpose", "smimesign"]
    command += ["-attime", at, "-CAfile", "c2pa-ca.pem", "c2pa-cert.pem"]
    return not subprocess.run(command, cwd=folder, check=False).returncode


def test_others_may_read_what_is_no_secret(tmp_path):
    need_c2pa()
    folder = tmp_path / "a" / "new"
    for made in (folder, tmp_path):
        assert invoke(made).exit_code == 0
        modes = {path.name: path.stat().st_mode & 0o777 for path in made.glob("*.pem")}
        readable = 0o644 & ~current_umask()
        assert modes == {
            **{"c2pa-cert.pem": readable, "c2pa-ca.pem": readable},
            "c2pa-key.pem": 0o600,
        }


@pytest.mark.parametrize(
    ("folder", "hidden", "code", "words"),
    [
        # Nobody, not even root, makes folders there.
        ("/proc/nowhere", None, 1, "/proc/nowhere: "),
        ("new", "cryptography.hazmat.primitives", 2, "requirements-c2pa.txt"),
    ],
)
def test_what_keeps_it_from_being_made_is_said(
    monkeypatch, tmp_path, folder, hidden, code, words
):
    need_c2pa()
    monkeypatch.chdir(tmp_path)
    if hidden:
        monkeypatch.setitem(sys.modules, hidden, None)
    failure = invoke(folder).exception
    assert isinstance(failure, Failure)
    assert (failure.exit_code, words in str(failure)) == (code, True)
    assert list(tmp_path.iterdir()) == []


def invoke(folder):
    """The command in this process."""
    return CliRunner().invoke(program, ["c2pa-cert", str(folder)], obj={})


def current_umask():
    """It cannot be asked for without being set."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_it_writes_over_nothing(tmp_path):
    need_c2pa()
    (tmp_path / "c2pa-key.pem").write_text("a key of mine")
    done = run(tmp_path, "c2pa-cert")
    assert done.returncode == 2
    assert b"c2pa-key.pem is there already" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["c2pa-key.pem"]
    assert (tmp_path / "c2pa-key.pem").read_text() == "a key of mine"
