"""Signing: what is wrong with a certificate is named before the start, a time stamp
that is not given costs no picture, and what strangers wrote costs their own only."""

from __future__ import annotations

import datetime
import io
import json
import os
import random
import re
import signal
import sys
from pathlib import Path

import pytest

from flux_api.errors import BadSetting, PipelineFailed
from flux_api.images.certificates import read_pair
from flux_api.images.codec import encode_image
from flux_api.images.credentials import describe_input
from flux_api.images.decoder import Decoder
from flux_api.images.file_notes import credentials_of
from flux_api.images.signing import find_library, open_signer
from tests.images.test_decoder import assert_two_at_most
from tests.support.credentials import check_data_hash, make_certificates
from tests.support.hostile_images import plain
from tests.support.processes import children
from tests.support.servers import run_api
from tests.support.time_stamps import authority
from tests.support.trap_server import trap


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The paths of a certificate and its key."""
    settings, _ = make_certificates(tmp_path_factory.mktemp("c2pa"))
    return settings["FLUX_C2PA_CERT"], settings["FLUX_C2PA_KEY"]


@pytest.fixture(scope="module")
def signer(files):
    """One without time stamps."""
    return open_signer(*files, None)


def sign(signer, name="png", kept=()):
    """A picture's file, signed, and what the caller is told."""
    file, note = signer.sign(encode_image(plain(), name), "generate", kept)
    return file.data, note


def read(data, kind="png"):
    """The newest manifest, by the library."""
    import c2pa

    told = json.loads(c2pa.Reader(f"image/{kind}", io.BytesIO(data)).json())
    assert told["validation_state"] == "Valid"
    return told["manifests"][told["active_manifest"]]


# What stops the start


def certificate(key, *, days=(-2, 2), usage="emailProtection", is_authority=False):
    """PEM of a certificate that signs itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    uses = {
        "emailProtection": ExtendedKeyUsageOID.EMAIL_PROTECTION,
        "serverAuth": ExtendedKeyUsageOID.SERVER_AUTH,
    }
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "of the tests")])
    now, public = datetime.datetime.now(datetime.UTC), key.public_key()
    first, last = (now + datetime.timedelta(days=day) for day in days)
    own = x509.AuthorityKeyIdentifier.from_issuer_public_key(public)
    sign_only = [True] + [False] * 8
    builder = (
        x509.CertificateBuilder(name, name, public, 7, first, last)
        .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
        .add_extension(x509.KeyUsage(*sign_only), critical=True)
        .add_extension(x509.ExtendedKeyUsage([uses[usage]]), critical=False)
        .add_extension(own, critical=False)
    )
    digest = None if "Ed25519" in type(key).__name__ else hashes.SHA256()
    return builder.sign(key, digest).public_bytes(serialization.Encoding.PEM)


def private(key, form="PKCS8", password=None):
    """PEM of a key."""
    from cryptography.hazmat.primitives import serialization

    lock = serialization.NoEncryption()
    if password:
        lock = serialization.BestAvailableEncryption(password)
    form = getattr(serialization.PrivateFormat, form)
    return key.private_bytes(serialization.Encoding.PEM, form, lock)


def new_key(curve="SECP256R1"):
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(getattr(ec, curve)())


def other_keys():
    """Of each kind that C2PA knows beside the usual one."""
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

    yield new_key("SECP384R1")
    yield ed25519.Ed25519PrivateKey.generate()
    yield rsa.generate_private_key(65537, 2048)


def pair(folder, cert, key):
    """Both as files."""
    for name, data in (("cert.pem", cert), ("key.pem", key)):
        (folder / name).write_bytes(data)
    return folder / "cert.pem", folder / "key.pem"


WRONG = {
    "no certificate": (lambda key: (b"junk", private(key)), "CERT", "no certificate"),
    "no key": (lambda key: (certificate(key), b"junk"), "KEY", "no private key"),
    "a locked key": (
        lambda key: (certificate(key), private(key, password=b"secret")),
        "KEY",
        "locked with a password",
    ),
    "another's key": (
        lambda key: (certificate(key), private(new_key())),
        "KEY",
        "not the key of the first certificate in FLUX_C2PA_CERT",
    ),
    "a curve of its own": (
        lambda _: (lambda k: (certificate(k), private(k)))(new_key("SECP256K1")),
        "KEY",
        "C2PA signs with P-256",
    ),
    "an old certificate": (
        lambda key: (certificate(key, days=(-9, -2)), private(key)),
        "CERT",
        "expired on 20",
    ),
    "a coming certificate": (
        lambda key: (certificate(key, days=(2, 9)), private(key)),
        "CERT",
        "valid only from 20",
    ),
    "a web server's": (
        lambda key: (certificate(key, usage="serverAuth"), private(key)),
        "CERT",
        "extendedKeyUsage emailProtection",
    ),
    "an authority's": (
        lambda key: (certificate(key, is_authority=True), private(key)),
        "CERT",
        "not an authority's",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_sign_is_named(what, tmp_path):
    make, variable, words = WRONG[what]
    paths = pair(tmp_path, *make(new_key()))
    with pytest.raises(BadSetting) as caught:
        open_signer(*paths, None)
    message = str(caught.value)
    assert message.startswith(f"FLUX_C2PA_{variable}")
    assert words in message
    assert message.isprintable() and "PRIVATE" not in message
    # Where the library refuses, in its own words, too.
    assert ": ;" not in message


def test_a_certificate_goes_with_its_key(files):
    cert, key = files
    for given, lacking in (
        ((cert, None, None), "FLUX_C2PA_KEY is not set"),
        ((None, key, None), "FLUX_C2PA_CERT is not set"),
        ((None, None, "http://a/"), "FLUX_C2PA_CERT is not set"),
        ((cert, key.parent, None), "FLUX_C2PA_KEY=.*Is a directory"),
    ):
        with pytest.raises(BadSetting, match=lacking):
            open_signer(*given)
    assert open_signer(None, None, None) is None


def test_a_pair_that_is_logged_or_stands_in_a_traceback_shows_no_key(files):
    pair = read_pair(*files)
    assert "BEGIN CERTIFICATE" in repr(pair)
    assert "PRIVATE KEY" in pair.key and "PRIVATE" not in repr(pair)


def test_a_missing_library_is_named(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "c2pa", None)
    with pytest.raises(BadSetting, match="pip install -r requirements-c2pa.txt"):
        open_signer(*files, None)


def test_a_server_with_a_wrong_pair_does_not_start(tmp_path):
    cert, key = pair(tmp_path, certificate(new_key()), private(new_key()))
    with (
        pytest.raises(AssertionError, match=r"FLUX_C2PA_KEY='.*not the key") as caught,
        run_api(
            app="tests.support.fake_app:app", FLUX_C2PA_CERT=cert, FLUX_C2PA_KEY=key
        ),
    ):
        pass
    assert "PRIVATE" not in str(caught.value)


@pytest.mark.parametrize("days", [29, 31])
def test_a_certificate_that_will_soon_expire_is_warned_of(days, tmp_path, caplog):
    key = new_key()
    open_signer(*pair(tmp_path, certificate(key, days=(-2, days)), private(key)), None)
    assert ("expires on 20" in caplog.text) == (days == 29)


def test_every_kind_of_key_signs(tmp_path):
    for key in other_keys():
        paths = pair(tmp_path, certificate(key), private(key))
        check_data_hash(sign(open_signer(*paths, None))[0])


def test_openssls_older_form_of_a_key_is_read(tmp_path):
    key = new_key()
    paths = pair(tmp_path, certificate(key), private(key, "TraditionalOpenSSL"))
    check_data_hash(sign(open_signer(*paths, None))[0])


# Time stamps


def test_a_time_stamp_is_in_the_signature(files, signer, tmp_path):
    with authority(tmp_path) as url:
        data, note = sign(open_signer(*files, url))
    assert note == ""
    today = datetime.datetime.now(datetime.UTC).date()
    time = datetime.datetime.fromisoformat(read(data)["signature_info"]["time"])
    assert abs((time.date() - today).days) <= 1
    assert "time" not in read(sign(signer)[0])["signature_info"]


def test_without_an_answer_pictures_are_signed_all_the_same_and_say_so(files):
    with trap(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n") as busy:
        stamped = open_signer(*files, busy.url("/tsa"))
        for _ in range(3):
            data, note = sign(stamped)
            assert "without a time stamp" in note
            assert "time" not in read(data)["signature_info"]
        # For a minute it is not asked again.
        assert busy.connections == 1


def test_an_authority_that_hangs_is_not_waited_for_long(files, monkeypatch):
    monkeypatch.setattr("flux_api.images.signing._STAMP_SECONDS", 0.5)
    with trap(lambda *_: b"") as slow:
        data, note = sign(open_signer(*files, slow.url("/tsa")))
    assert "without a time stamp" in note
    check_data_hash(data)


# The processes


@pytest.fixture
def alone(files):
    """A signer that nobody else uses, and the process ids of its children."""
    before = children()
    fresh = open_signer(*files, None)
    return fresh, lambda: [int(pid) for pid in children() if pid not in before]


def test_a_child_that_dies_is_replaced(alone):
    fresh, pids = alone
    [pid] = pids()
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    check_data_hash(sign(fresh)[0])
    assert pids() != [pid]


def test_only_the_child_knows_the_key_and_nothing_else(alone):
    _, pids = alone
    [pid] = pids()
    environ = Path(f"/proc/{pid}/environ").read_bytes()
    assert sorted(line.split(b"=")[0] for line in environ.split(b"\0") if line) == [
        *(b"MALLOC_ARENA_MAX", b"OPENBLAS_NUM_THREADS")
    ]
    limits = Path(f"/proc/{pid}/limits").read_text()
    assert re.search(r"Max core file size +0 +0 ", limits)
    assert re.search(r"Max address space +1610612736 +1610612736", limits)


def test_there_are_never_more_than_two_of_them(alone):
    fresh, pids = alone
    assert_two_at_most(fresh._children, pids)


def test_a_picture_that_cannot_be_signed_is_an_error(signer):
    with pytest.raises(PipelineFailed, match="could not be signed"):
        sign(signer, kept=[b"no archive"])
    check_data_hash(sign(signer)[0])


# What strangers wrote


@pytest.fixture(scope="module")
def decoder():
    """One that takes credentials out of files."""
    return Decoder(c2pa=find_library())


def keep(decoder, data, most=1 << 20):
    return credentials_of(decoder, data, describe_input(0), most)


def test_credentials_are_taken_out_of_every_format(decoder, signer):
    for name in ("png", "jpeg", "webp"):
        data = sign(signer, name)[0]
        archive, why = keep(decoder, data)
        assert (len(archive) > 2000, why) == (True, "")
        kept = sign(signer, kept=[archive])[0]
        [parent] = read(kept)["ingredients"]
        assert parent["active_manifest"] == read(data, name)["label"]
        # What viewers of credentials show.
        assert parent["title"] == "input picture 1"
        assert parent["relationship"] == "parentOf"
    assert keep(decoder, encode_image(plain()).data) == (b"", "")


def test_credentials_beyond_the_room_are_left_out(decoder, signer):
    archive, why = keep(decoder, sign(signer)[0], most=2048)
    assert (archive, why) == (b"", "take more than the 2 KiB that there is room for")


def test_damaged_credentials_are_kept_or_named(decoder, signer):
    data = sign(signer, "webp")[0]
    start, end = check_data_hash(data)
    chance = random.Random(7)
    outcomes = set()
    for _ in range(60):
        damaged = bytearray(data)
        for _ in range(chance.choice((1, 1, 8))):
            damaged[chance.randrange(start + 8, end)] = chance.randrange(256)
        archive, why = keep(decoder, bytes(damaged))
        outcomes.add(why)
        assert bool(archive) != bool(why)
        if archive:
            check_data_hash(sign(signer, kept=[archive])[0])
    assert outcomes == {"", "are damaged"}
