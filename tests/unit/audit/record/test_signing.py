"""Signatures hold for what was signed and nothing else, and others can check them."""

from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from securesystemslib.dsse import Envelope as TheirEnvelope
from securesystemslib.signer import SSlibKey

from danlu.audit.record.signing import (
    PAYLOAD_TYPE,
    Envelope,
    fingerprint,
    folder_problems,
    make_keys,
    sign,
    sign_folder,
    signs,
)
from danlu.core.errors import CorruptError, UsageError
from network import no_network

PAYLOAD = '{"said":"丹"}'.encode()


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_keys(tmp_path_factory.mktemp("workspace") / "keys")


def test_keys_are_made_once_and_the_private_one_is_its_owners(tmp_path: Path) -> None:
    private, public = make_keys(tmp_path / "keys")
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    before = private.read_bytes()
    assert make_keys(tmp_path / "keys") == (private, public)
    assert private.read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == ["signing.pem", "signing.pub"]


@pytest.mark.parametrize("lost", ["signing.pem", "signing.pub"])
def test_a_lost_key_is_told_of_and_no_other_is_made(tmp_path: Path, lost: str) -> None:
    make_keys(tmp_path / "keys")
    (tmp_path / "keys" / lost).unlink()
    with pytest.raises(UsageError, match=lost):
        make_keys(tmp_path / "keys")
    assert not (tmp_path / "keys" / lost).exists()


def test_a_fingerprint_is_that_of_the_key_and_not_of_its_file(keys: tuple[Path, Path]) -> None:
    public = keys[1].read_bytes()
    key = serialization.load_pem_public_key(public)
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert fingerprint(public) == hashlib.sha256(der).hexdigest()
    assert fingerprint(public.replace(b"\n", b"\r\n")) == fingerprint(public)


@pytest.mark.parametrize("content", [b"", b"x", b"-----BEGIN PUBLIC KEY-----\n??\n-----END PUBLIC KEY-----", b"\xff\n"])
def test_what_is_no_public_key_has_no_fingerprint(content: bytes) -> None:
    with pytest.raises(CorruptError, match="not a public key"):
        fingerprint(content)


def test_an_envelope_comes_back_from_its_file(keys: tuple[Path, Path], tmp_path: Path) -> None:
    envelope = sign(PAYLOAD, keys[0])
    (tmp_path / "x.json").write_bytes(envelope.written())
    assert Envelope.read(tmp_path / "x.json") == envelope
    assert envelope.statement() == {"said": "丹"}
    assert envelope.signatures[0][0] == fingerprint(keys[1].read_bytes())


def test_a_signature_holds_for_its_payload_type_and_key_alone(keys: tuple[Path, Path], tmp_path: Path) -> None:
    envelope, public = sign(PAYLOAD, keys[0]), keys[1].read_bytes()
    assert signs(envelope, public)
    assert not signs(Envelope(PAYLOAD + b" ", PAYLOAD_TYPE, envelope.signatures), public)
    assert not signs(Envelope(PAYLOAD, "text/plain", envelope.signatures), public)
    assert not signs(Envelope(PAYLOAD), public)
    assert not signs(envelope, make_keys(tmp_path / "keys")[1].read_bytes())


def test_an_independent_reader_accepts_the_envelope_and_rejects_another(keys: tuple[Path, Path]) -> None:
    envelope = sign(PAYLOAD, keys[0])
    (keyid, _), *_ = envelope.signatures
    values = {"public": keys[1].read_text()}
    key = SSlibKey(keyid, "ecdsa", "ecdsa-sha2-nistp256", values)
    theirs = TheirEnvelope.from_dict(json.loads(envelope.written()))
    assert theirs.verify([key], 1)
    theirs.payload += b" "
    with pytest.raises(Exception, match=r"[Vv]erif|threshold|[Ss]ignature"):
        theirs.verify([key], 1)


def test_a_signed_folder_holds_until_a_file_is_changed_added_or_removed(
    keys: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    (folder / "record").mkdir(parents=True)
    for name in ("a.bin", ".gitignore", "record/b.json"):
        (folder / name).write_text(name)
    with no_network():
        sign_folder(folder, keys[0], "record/model.sig")
        assert folder_problems(folder, keys[1], "record/model.sig") == []
    (folder / ".gitignore").write_text("x")
    assert folder_problems(folder, keys[1], "record/model.sig") == [".gitignore was changed"]
    (folder / ".gitignore").write_text(".gitignore")
    (folder / "c").write_text("")
    assert folder_problems(folder, keys[1], "record/model.sig") == ["c was not signed"]
    (folder / "c").unlink()
    (folder / "a.bin").unlink()
    assert folder_problems(folder, keys[1], "record/model.sig") == ["a.bin is missing"]
    (folder / "a.bin").write_text("a.bin")
    assert folder_problems(folder, make_keys(tmp_path / "keys")[1], "record/model.sig") != []
