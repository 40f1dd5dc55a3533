"""``c2pa-cert``: a certificate to try content credentials with."""

from __future__ import annotations

import os
import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flux_api.commands.transport import FAILED, REFUSED, Failure
from flux_api.images.certificates import CERTIFICATE, KEY

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509 import Certificate, CertificateBuilder, KeyUsage

_DAYS = 365
# Clocks of others may be behind.
_BEFORE = timedelta(hours=1)
_ORGANISATION = "Flux Imaging API, not to be trusted"
_AUTHORITY = "trial authority"
_USES = (
    *("digital_signature", "content_commitment", "key_encipherment"),
    *("data_encipherment", "key_agreement", "key_cert_sign", "crl_sign"),
    *("encipher_only", "decipher_only"),
)


@click.command("c2pa-cert")
@click.argument("folder", default=".", type=click.Path(file_okay=False, path_type=Path))
def c2pa_cert(folder: Path) -> int:
    """Make a certificate and its key in FOLDER, to try content credentials with.

    It is good for a year, by an authority made for it alone: programs say that the
    signer is unknown, unless they are given c2pa-ca.pem to trust. For pictures that go
    out, buy one from an authority on C2PA's trust list.

    \b
    flux-api c2pa-cert ~/c2pa
    """
    try:
        files = _make()
    except ImportError:
        message = "this needs c2pa-python: pip install -r requirements-c2pa.txt"
        raise Failure(message, REFUSED) from None
    paths = {name: folder / name for name in files}
    if there := next(filter(os.path.lexists, paths.values()), None):
        raise Failure(f"{there} is there already", REFUSED)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            mode = 0o600 if "key" in name else 0o644
            # Never over a file that came meanwhile.
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            with os.fdopen(os.open(paths[name], flags, mode), "wb") as file:
                file.write(text)
    except OSError as error:
        raise Failure(f"{folder}: {error.strerror or error}", FAILED) from None
    for variable, name in ((CERTIFICATE, "c2pa-cert.pem"), (KEY, "c2pa-key.pem")):
        click.echo(f"export {variable}={shlex.quote(str(paths[name].absolute()))}")
    return 0


def _make() -> dict[str, bytes]:
    """The files by their names, in PEM. The authority's key is kept nowhere."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    authority, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    pem = serialization.Encoding.PEM
    # Without a password: a server that starts by itself could not be asked for one.
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return {
        "c2pa-cert.pem": _signer(key, authority).public_bytes(pem),
        "c2pa-key.pem": private,
        "c2pa-ca.pem": _authority(authority).public_bytes(pem),
    }


def _authority(key: EllipticCurvePrivateKey) -> Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    return (
        _begin(_AUTHORITY, key, key)
        .add_extension(x509.BasicConstraints(True, None), critical=True)
        .add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
        .sign(key, hashes.SHA256())
    )


def _signer(
    key: EllipticCurvePrivateKey, authority: EllipticCurvePrivateKey
) -> Certificate:
    """With the extensions that C2PA asks of a signer."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID

    mail = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
    return (
        _begin("trial signer", key, authority)
        .add_extension(x509.BasicConstraints(False, None), critical=True)
        .add_extension(_usage("digital_signature"), critical=True)
        .add_extension(mail, critical=False)
        .sign(authority, hashes.SHA256())
    )


def _begin(
    name: str, key: EllipticCurvePrivateKey, authority: EllipticCurvePrivateKey
) -> CertificateBuilder:
    """A certificate of ``key`` by ``authority``, before it is said what it may do."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    def named(text: str) -> x509.Name:
        organisation = x509.NameAttribute(NameOID.ORGANIZATION_NAME, _ORGANISATION)
        return x509.Name([organisation, x509.NameAttribute(NameOID.COMMON_NAME, text)])

    now, own, issuer = datetime.now(UTC), key.public_key(), authority.public_key()
    subject = x509.SubjectKeyIdentifier.from_public_key(own)
    issuing = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer)
    return (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(_AUTHORITY))
        .public_key(own)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BEFORE)
        .not_valid_after(now + timedelta(days=_DAYS))
        .add_extension(subject, critical=False)
        .add_extension(issuing, critical=False)
    )


def _usage(*allowed: str) -> KeyUsage:
    from cryptography.x509 import KeyUsage

    return KeyUsage(**{use: use in allowed for use in _USES})
