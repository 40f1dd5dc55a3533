"""``flux-api c2pa-cert``: files to try content credentials with."""

from __future__ import annotations

import stat
import subprocess
import time

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


def is_good(folder, after):
    """Whether OpenSSL, as strict as it can be, finds that this may sign ``after`` so
    many seconds from now: the same kind of certificate signs mails."""
    at = str(round(time.time()) + after)
    command = ["openssl", "verify", "-x509_strict", "-purpose", "smimesign"]
    command += ["-attime", at, "-CAfile", "c2pa-ca.pem", "c2pa-cert.pem"]
    return not subprocess.run(command, cwd=folder, check=False).returncode


def test_it_writes_over_nothing(tmp_path):
    need_c2pa()
    (tmp_path / "c2pa-key.pem").write_text("a key of mine")
    done = run(tmp_path, "c2pa-cert")
    assert done.returncode == 2
    assert b"c2pa-key.pem is there already" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["c2pa-key.pem"]
    assert (tmp_path / "c2pa-key.pem").read_text() == "a key of mine"
