"""C2PA's content credentials: a signed statement in the file on how it was made, with the user's own key.

c2pa-python does the work; it is an extra, as nothing else needs it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..errors import TalkingPortraitError
from ..files.input_paths import existing_file
from ..files.output_paths import file_to_write, keep_inputs, replacing
from ..packages import VERSION, first_line, pip_install
from .metadata import SOURCE_TYPE_PAGE, read_statement

SIGNED = (".mp4", ".m4v", ".mov")
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}


@dataclass(frozen=True)
class Credentials:
    """What a file's content credentials say: c2pa's verdict `state` ("Trusted", "Valid" or "Invalid"), who signed
    them, the tool, IPTC's type of source, and what c2pa found wrong."""

    state: str
    issuer: str
    tool: str
    source_type: str
    problems: tuple[str, ...]


def sign(video: str | Path, out: str | Path, *, key: str | Path, certificate: str | Path) -> Path:
    """Writes a copy of an MP4 or MOV file that carries content credentials; returns its path.

    `key` and `certificate` are PEM files, the certificate with its chain. Raises TalkingPortraitError for a video that
    does not say that AI made it, for files that can't be used, and without the package.
    """
    c2pa = _package()
    source = existing_file(video, "video")
    for path in (source, Path(out)):
        if path.suffix.lower() not in SIGNED:
            raise TalkingPortraitError(f"Content credentials go into MP4 and MOV files, but {path.name} is another.")
    target = file_to_write(out)
    key, certificate = existing_file(key, "key"), existing_file(certificate, "certificate")
    keep_inputs(target, source, key, certificate)
    algorithm, private = _private_key(key, certificate)
    statement = read_statement(source)
    if statement is None:
        raise TalkingPortraitError(
            f"{source.name} does not say that AI made it, so nothing can be signed; give a video of this program."
        )
    manifest = {
        "claim_generator_info": [{"name": "Talking Portrait", "version": VERSION}],
        "title": source.name,
        "assertions": [
            {
                "label": "c2pa.actions",
                "data": {"actions": [{"action": "c2pa.created", "digitalSourceType": SOURCE_TYPE_PAGE}]},
            }
        ],
    }
    with replacing(target) as partial:
        try:
            info = c2pa.C2paSignerInfo(algorithm, certificate.read_bytes(), private, None)
            with c2pa.Signer.from_info(info) as signer, c2pa.Builder(json.dumps(manifest)) as builder:
                builder.sign_file(source, partial, signer)
        except (c2pa.C2paError, ValueError, OSError) as error:
            raise TalkingPortraitError(
                f"{source.name} can't be signed ({first_line(error)}); give a whole video, and a certificate that "
                "an authority issued for digitalSignature and emailProtection or documentSigning."
            ) from None
    return Path(out)


def read_credentials(path: Path) -> Credentials | None:
    """The credentials in a file; None where it has none, or the package is not installed."""
    try:
        import c2pa
    except ImportError:
        return None
    try:
        with c2pa.Reader(str(path)) as reader:
            report = json.loads(reader.json())
    except (c2pa.C2paError, ValueError):  # a file without credentials, or of a kind that can't hold them
        return None
    manifest = report.get("manifests", {}).get(report.get("active_manifest"), {})
    actions = [
        action
        for assertion in manifest.get("assertions", [])
        if str(assertion.get("label", "")).startswith("c2pa.actions")
        for action in assertion.get("data", {}).get("actions", [])
    ]
    types = [str(action["digitalSourceType"]) for action in actions if action.get("digitalSourceType")]
    tools = manifest.get("claim_generator_info") or [{}]
    problems = [str(problem.get("code", "")) for problem in report.get("validation_status", [])]
    return Credentials(
        state=str(report.get("validation_state", "")),
        issuer=str((manifest.get("signature_info") or {}).get("issuer") or ""),
        tool=f"{tools[0].get('name', '')} {tools[0].get('version', '')}".strip(),
        source_type=types[0].rpartition("/")[2] if types else "",
        problems=tuple(problems),
    )


def _package() -> Any:
    try:
        import c2pa

        return c2pa
    except ImportError as error:
        raise TalkingPortraitError(
            f"Content credentials need c2pa-python ({error}); run: {pip_install('c2pa-python')}"
        ) from None


def _private_key(key: Path, certificate: Path) -> tuple[Any, bytes]:
    """C2PA's name of the algorithm that fits a private key, and the key as C2PA takes it, PKCS#8 in PEM.

    Raises TalkingPortraitError for what is no such key, and for a certificate that is not the key's or not valid today.
    """
    import c2pa
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    private = _loaded_key(key)
    if isinstance(private, ec.EllipticCurvePrivateKey) and private.curve.name in _CURVES:
        algorithm = c2pa.C2paSigningAlg[_CURVES[private.curve.name]]
    elif isinstance(private, rsa.RSAPrivateKey):
        algorithm = c2pa.C2paSigningAlg.PS256
    elif isinstance(private, ed25519.Ed25519PrivateKey):
        algorithm = c2pa.C2paSigningAlg.ED25519
    else:
        raise TalkingPortraitError(
            f"The key {key.name} is of a kind that C2PA does not take; give one of the curves {', '.join(_CURVES)}, of "
            "Ed25519 or of RSA."
        )
    _check_certificate(certificate, key, private.public_key())
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return algorithm, private.private_bytes(*form)


def _loaded_key(key: Path) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return load_pem_private_key(key.read_bytes(), None)
    except TypeError:
        reason = "it has a password"
    except (ValueError, UnsupportedAlgorithm):
        reason = "it holds none in PEM"
    raise TalkingPortraitError(
        f"{key.name} can't be used as a private key ({reason}); give the signer's private key as PEM, without a "
        "password."
    )


def _check_certificate(certificate: Path, key: Path, public: Any) -> None:
    from cryptography.x509 import load_pem_x509_certificates

    try:
        own = load_pem_x509_certificates(certificate.read_bytes())[0]
        same = own.public_key() == public
    except Exception:  # cryptography has many for what is no certificate, or one of an unknown kind
        raise TalkingPortraitError(
            f"{certificate.name} holds no certificate that can be read; give the signer's certificate and its chain as "
            "PEM."
        ) from None
    if not same:
        raise TalkingPortraitError(
            f"The key {key.name} is not that of the first certificate in {certificate.name}; give the key that belongs "
            "to it, and put the signer's own certificate before its chain."
        )
    first, last = own.not_valid_before_utc, own.not_valid_after_utc
    if not first <= datetime.now(timezone.utc) <= last:
        raise TalkingPortraitError(
            f"The certificate in {certificate.name} is valid from {first:%Y-%m-%d} to {last:%Y-%m-%d} only; give one "
            "that is valid today."
        )
