"""A certificate and its private key, as content credentials are signed with."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flux_api.errors import BadSetting

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

logger = logging.getLogger(__name__)

CERTIFICATE, KEY = "FLUX_C2PA_CERT", "FLUX_C2PA_KEY"
_SOON = timedelta(days=30)
_CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}


@dataclass(frozen=True, slots=True)
class KeyPair:
    """C2PA's name of the ``algorithm``, the ``chain`` of certificates in PEM, the
    signer's own first, and its private ``key`` in PEM."""

    algorithm: str
    chain: str
    key: str = field(repr=False)


def read_pair(certificate: Path, key: Path) -> KeyPair:
    """The pair in two files. BadSetting names the variable of the one that cannot be
    read, is no PEM, has expired, or does not belong to the other."""
    from cryptography.hazmat.primitives import serialization

    chain = _read_chain(certificate)
    private = _read_key(key)
    _check_dates(certificate, chain[0])
    public = serialization.PublicFormat.SubjectPublicKeyInfo
    der = serialization.Encoding.DER
    own = private.public_key().public_bytes(der, public)
    if chain[0].public_key().public_bytes(der, public) != own:
        why = f"it is not the key of the first certificate in {CERTIFICATE}"
        raise _refusal(KEY, key, why)
    pem = serialization.Encoding.PEM
    return KeyPair(
        _algorithm(key, private),
        "".join(one.public_bytes(pem).decode() for one in chain),
        # The library reads no other form.
        private.private_bytes(
            pem,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode(),
    )


def _refusal(variable: str, path: Path, why: object) -> BadSetting:
    return BadSetting(f"{variable}={str(path)!r}: {why}")


def _read(variable: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _refusal(variable, path, error.strerror or error) from None


def _read_chain(path: Path) -> list[Certificate]:
    from cryptography.x509 import load_pem_x509_certificates

    data = _read(CERTIFICATE, path)
    try:
        return load_pem_x509_certificates(data)
    except ValueError:
        raise _refusal(CERTIFICATE, path, "no certificate in PEM") from None


def _read_key(path: Path) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data = _read(KEY, path)
    try:
        return load_pem_private_key(data, None)
    except TypeError:
        why = "it is locked with a password: give one without"
    except (ValueError, UnsupportedAlgorithm):
        why = "no private key in PEM"
    raise _refusal(KEY, path, why)


def _check_dates(path: Path, certificate: Certificate) -> None:
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    now = datetime.now(UTC)
    if now < first:
        why = f"it is valid only from {first:%Y-%m-%d} on"
    elif now > last:
        why = f"it expired on {last:%Y-%m-%d}"
    else:
        if last - now < _SOON:
            logger.warning("%s=%r expires on %s", CERTIFICATE, str(path), last.date())
        return
    raise _refusal(CERTIFICATE, path, why)


def _algorithm(path: Path, key: Any) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return _CURVES[key.curve.name]
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, rsa.RSAPrivateKey):
        return "ps256"
    why = "C2PA signs with P-256, P-384, P-521, Ed25519 or RSA"
    raise _refusal(KEY, path, why)
