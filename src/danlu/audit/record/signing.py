"""Keys and signatures: DSSE envelopes for statements, and OpenSSF model signing for whole folders.

A key is an elliptic curve key (P-256) in a PEM file. Everything works without a connection. What signs and checks
signatures comes with the extra ``audit``; envelopes can be read without it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import importlib.util
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from danlu.core.errors import CorruptError, UsageError
from danlu.core.files import canonical_json, publish, read_json, scratch_folder, write_atomic

__all__ = [
    "INSTALL",
    "PAYLOAD_TYPE",
    "Envelope",
    "can_sign",
    "fingerprint",
    "folder_problems",
    "make_keys",
    "sign",
    "sign_folder",
    "signs",
]

PAYLOAD_TYPE = "application/vnd.in-toto+json"
"""Of an envelope that holds an in-toto statement."""

INSTALL = "pip install 'danlu[audit]'"
"""What brings everything that signing takes."""

_PACKAGES = ("cryptography", "cyclonedx", "jsonschema_rs", "model_signing", "OpenSSL")
_PRIVATE, _PUBLIC = "signing.pem", "signing.pub"


@dataclass(frozen=True)
class Envelope:
    """A DSSE envelope (Dead Simple Signing Envelope, version 1.0).

    Attributes:
        payload: What was signed.
        payload_type: What kind of content that is.
        signatures: The fingerprint of a key, and what it signed with, each.
    """

    payload: bytes
    payload_type: str = PAYLOAD_TYPE
    signatures: tuple[tuple[str, bytes], ...] = ()

    @classmethod
    def read(cls, path: Path) -> Envelope:
        """Read an envelope.

        Raises:
            CorruptError: The file is missing, or no envelope.
        """
        stored = read_json(path)
        try:
            signatures = tuple((str(each["keyid"]), _decoded(each["sig"])) for each in stored["signatures"])
            return cls(_decoded(stored["payload"]), str(stored["payloadType"]), signatures)
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise CorruptError("not a DSSE envelope", where=str(path)) from error

    def written(self) -> bytes:
        """The envelope as it is stored."""
        signatures = [{"keyid": keyid, "sig": _encoded(signature)} for keyid, signature in self.signatures]
        return canonical_json(
            {"payload": _encoded(self.payload), "payloadType": self.payload_type, "signatures": signatures}
        )

    def statement(self) -> dict[str, Any]:
        """The in-toto statement inside.

        Raises:
            CorruptError: There is none.
        """
        try:
            statement = json.loads(self.payload)
        except (ValueError, RecursionError) as error:
            raise CorruptError(f"the envelope holds no JSON: {error}") from error
        if self.payload_type != PAYLOAD_TYPE or not isinstance(statement, dict):
            raise CorruptError("the envelope holds no in-toto statement")
        return statement

    @property
    def signed_bytes(self) -> bytes:
        """What a signature is made over: the payload with its type and the lengths of both (PAE)."""
        kind = self.payload_type.encode()
        return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(self.payload), self.payload)


def can_sign() -> bool:
    """Whether the packages of the extra ``audit`` are here."""
    return all(importlib.util.find_spec(name) is not None for name in _PACKAGES)


def make_keys(folder: Path) -> tuple[Path, Path]:
    """The private and the public key of a workspace, made where there are none; the private one is its owner's alone.

    Args:
        folder: Where they are, or are to be.

    Raises:
        UsageError: There is a public key without its private one.
    """
    private, public = folder / _PRIVATE, folder / _PUBLIC
    if not folder.exists():
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        shown = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        with scratch_folder(folder.parent) as scratch:
            write_atomic(scratch / _PRIVATE, secret, mode=0o600)
            write_atomic(scratch / _PUBLIC, shown)
            with suppress(FileExistsError):  # another process was first
                publish(scratch, folder)
    for path in (private, public):
        if not path.is_file():
            advice = f"put {path.name} back from a copy, or move the folder away to have new keys made"
            raise UsageError(
                f"the signing keys are incomplete: {path.name} is missing", where=str(folder), advice=advice
            )
    return private, public


def fingerprint(public: bytes) -> str:
    """SHA-256 of a public key (its DER bytes), in hexadecimal.

    Raises:
        CorruptError: The bytes are no public key in PEM.
    """
    lines = public.decode("ascii", "replace").strip().splitlines()
    if lines[:1] != ["-----BEGIN PUBLIC KEY-----"] or lines[-1] != "-----END PUBLIC KEY-----":
        raise CorruptError("not a public key in PEM")
    try:
        return hashlib.sha256(_decoded("".join(lines[1:-1]))).hexdigest()
    except (ValueError, binascii.Error) as error:
        raise CorruptError("not a public key in PEM") from error


def sign(payload: bytes, private: Path) -> Envelope:
    """Put a statement into an envelope and sign it."""
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = serialization.load_pem_private_key(private.read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise UsageError("not an elliptic curve key", where=str(private))
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    signature = key.sign(Envelope(payload).signed_bytes, ec.ECDSA(hashes.SHA256()))
    return Envelope(payload, signatures=((fingerprint(public), signature),))


def signs(envelope: Envelope, public: bytes) -> bool:
    """Whether one of an envelope's signatures was made with the private key of a public one.

    Raises:
        CorruptError: The bytes are no public key on an elliptic curve.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        key = serialization.load_pem_public_key(public)
    except ValueError as error:
        raise CorruptError("not a public key in PEM") from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise CorruptError("not a public key on an elliptic curve")
    for _, signature in envelope.signatures:
        with suppress(InvalidSignature):
            key.verify(signature, envelope.signed_bytes, ec.ECDSA(hashes.SHA256()))
            return True
    return False


def sign_folder(folder: Path, private: Path, signature: str) -> None:
    """Sign all files of a folder (OpenSSF model signing, version 1.0), with the signature itself inside it.

    Args:
        folder: What is signed.
        private: The key.
        signature: Where the signature goes, from the folder on.
    """
    import model_signing

    hashing = model_signing.hashing.Config().set_ignored_paths(paths=[signature], ignore_git_paths=False)
    signer = model_signing.signing.Config().use_elliptic_key_signer(private_key=private)
    signer.set_hashing_config(hashing).sign(folder, folder / signature)


def folder_problems(folder: Path, public: Path, signature: str, ignored: Sequence[str] = ()) -> list[str]:
    """What is not as a folder's signature (OpenSSF model signing) says; nothing where all is well.

    Args:
        folder: What was signed.
        public: The key that it is said to be signed with.
        signature: Where the signature is, from the folder on.
        ignored: Files that were not signed, besides the signature.
    """
    import model_signing
    from cryptography.exceptions import InvalidSignature

    paths = [signature, *ignored]
    hashing = model_signing.hashing.Config().set_ignored_paths(paths=paths, ignore_git_paths=False)
    try:
        verifier = model_signing.verifying.Config().use_elliptic_key_verifier(public_key=public)
        verifier.set_hashing_config(hashing).verify(folder, folder / signature)
    except InvalidSignature:
        return ["the signature does not fit what it lists"]
    except Exception as error:  # whatever the file holds, it is a bad signature
        return _told(str(error)) or [str(error) or type(error).__name__]
    return []


def _told(message: str) -> list[str]:
    """What the library says of files, in fewer words; nothing where it speaks of something else."""
    found = [f"{name} was changed" for name in re.findall(r"Hash mismatch for \\?'([^'\\]+)\\?'", message)]
    for kind, what in (("Extra", "was not signed"), ("Missing", "is missing")):
        for names in re.findall(rf"{kind} files (?:found )?in model '[^']*': ([^\"'\]]+)", message):
            found += [f"{name} {what}" for name in names.split(", ")]
    return found


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _decoded(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
