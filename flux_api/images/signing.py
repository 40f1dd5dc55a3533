"""Finished pictures signed with content credentials, in processes that alone have the
key: ``sign_child.py``."""

from __future__ import annotations

import base64
import dataclasses
import functools
import importlib.util
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from flux_api.errors import BadSetting, PipelineFailed
from flux_api.images.certificates import CERTIFICATE, KEY, KeyPair, read_pair
from flux_api.images.children import Child, Pool
from flux_api.images.codec import EncodedImage, encode_image
from flux_api.images.credentials import make_manifest
from flux_api.images.sign_child import DONE, HEADER

logger = logging.getLogger(__name__)

TIMESTAMP = "FLUX_C2PA_TIMESTAMP_URL"
CHILDREN = 2
_SECONDS = 30.0
_STAMP_SECONDS = 10.0
# After a failure the authority is left alone for a while: others would wait for it too.
_NO_STAMPS_SECONDS = 60.0
# What a manifest adds beside the credentials that it keeps.
_MOST_ADDED = 1 << 20
_UNSTAMPED = (
    "The picture is signed without a time stamp: the authority gave none in time."
)
_PROFILE = (
    "C2PA asks for a signer's certificate of version 3, not an authority's own, with "
    "keyUsage digitalSignature, extendedKeyUsage emailProtection, and an "
    "authorityKeyIdentifier"
)


class Signer:
    """Signs finished pictures as the holder of ``pair``, with a time stamp where there
    is a ``timestamp_url``."""

    def __init__(self, pair: KeyPair, timestamp_url: str | None = None) -> None:
        told = dataclasses.asdict(pair) | {"timestamp_url": timestamp_url}
        make = functools.partial(_SignChild, told)
        self._children = Pool(make, CHILDREN, "sign a picture")
        self._has_authority = timestamp_url is not None
        self._no_stamps_until = 0.0

    def check(self) -> None:
        """Sign a first picture; BadSetting says why the library does not."""
        small = encode_image(Image.new("RGB", (8, 8)))
        try:
            self._ask(small, make_manifest("generate", ()), (), stamped=False)
        except (_Refused, EOFError, OSError) as error:
            message = f"{CERTIFICATE}: pictures cannot be signed with it: {error}"
            raise BadSetting(f"{message}; {_PROFILE}") from None

    def sign(
        self, file: EncodedImage, mode: str, kept: Sequence[bytes]
    ) -> tuple[EncodedImage, str]:
        """``file``, a picture of ``mode``, signed, and a sentence for the caller where
        it has no time stamp that it should have. ``kept`` are the archived credentials
        of its input pictures. PipelineFailed where it cannot be signed."""
        manifest = make_manifest(mode, kept)
        if self._has_authority and time.monotonic() >= self._no_stamps_until:
            try:
                return self._ask(file, manifest, kept, stamped=True), ""
            except (_Refused, EOFError, OSError) as error:
                self._no_stamps_until = time.monotonic() + _NO_STAMPS_SECONDS
                logger.warning("%s: no time stamps for a minute: %s", TIMESTAMP, error)
        try:
            signed = self._ask(file, manifest, kept, stamped=False)
        except (_Refused, EOFError, OSError) as error:
            logger.error("a picture could not be signed: %s", error)
            message = "The picture could not be signed, and is not given out without."
            raise PipelineFailed(message) from error
        return signed, _UNSTAMPED if self._has_authority else ""

    def _ask(
        self, file: EncodedImage, manifest: str, kept: Sequence[bytes], *, stamped: bool
    ) -> EncodedImage:
        archives = [archive for archive in kept if archive]
        told = {
            "media_type": file.media_type,
            "manifest": manifest,
            "archives": [base64.b64encode(archive).decode() for archive in archives],
            "stamped": stamped,
        }
        most = len(file.data) + 2 * sum(map(len, archives)) + _MOST_ADDED
        seconds = _STAMP_SECONDS if stamped else _SECONDS
        with self._children.lend() as child:
            signed = child.ask(told, file.data, most=most, seconds=seconds)
        return dataclasses.replace(file, data=signed)


def open_signer(
    certificate: Path | None, key: Path | None, timestamp_url: str | None
) -> Signer | None:
    """Who signs with the pair in two files; None where there is none. BadSetting names
    what is missing or wrong, after a first picture was signed for a trial."""
    if certificate is None and key is None and timestamp_url is None:
        return None
    if certificate is None or key is None:
        lacking = CERTIFICATE if certificate is None else KEY
        raise BadSetting(f"{lacking} is not set: a certificate goes with its key")
    if find_library() is None:
        extra = "pip install -r requirements-c2pa.txt"
        raise BadSetting(f"{CERTIFICATE}: signing needs c2pa-python: {extra}")
    signer = Signer(read_pair(certificate, key), timestamp_url)
    signer.check()
    return signer


def find_library() -> Path | None:
    """The folder that c2pa-python is imported from; None where it is not installed."""
    found = importlib.util.find_spec("c2pa")
    return Path(found.origin).parents[1] if found and found.origin else None


class _Refused(ValueError):
    """The library did not sign; its words are for the operator."""


class _SignChild(Child):
    """One process that signs; ``pair`` is all that it is told before."""

    def __init__(self, pair: dict[str, Any]) -> None:
        library = find_library()
        program = Path(__file__).with_name("sign_child.py")
        super().__init__(program, (library,) if library else ())
        try:
            self.ask(pair, b"", most=0, seconds=_SECONDS)
        except BaseException:
            self.kill()
            raise

    def ask(
        self, told: dict[str, Any], picture: bytes, *, most: int, seconds: float
    ) -> bytes:
        """The signed file, at most ``most`` bytes."""
        text = json.dumps(told).encode()
        with self.in_time(seconds):
            self.write(HEADER.pack(DONE, len(text), len(picture)), text, picture)
            kind, length, _ = HEADER.unpack(self.read(HEADER.size))
            if kind == DONE and length > most:
                raise EOFError
            answer = self.read(length if kind == DONE else min(length, 300))
        self.answered += 1
        if kind != DONE:
            raise _Refused(answer.decode("utf-8", "replace"))
        return answer
