"""One root seed a run, named streams derived from it, and commitments to them made before the first step.

A stream's key is SHA-256(root ‖ name), so that no stream depends on how much of another was used. Within a stream,
a position (an epoch, a step) gives its own generator; nothing is carried from step to step, and resuming needs no
generator state. A commitment is SHA-256(key ‖ nonce): it says nothing about the stream until key and nonce are shown,
and one stream can be opened without the others.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from danlu.core.errors import CorruptError
from danlu.core.files import read_json, write_json

__all__ = ["STREAMS", "Seeds"]

STREAMS = ("init", "order", "dropout", "augment", "sample")
_N_BYTES = 32


@dataclass(frozen=True)
class Seeds:
    """The randomness of one run.

    Attributes:
        root: 32 secret bytes that everything is derived from.
        nonces: 32 random bytes a stream, which blind its commitment.
    """

    root: bytes = field(repr=False)
    nonces: dict[str, bytes] = field(repr=False)

    @classmethod
    def new(cls, seed: str | None = None) -> Seeds:
        """Fresh seeds: from the operating system, or the root from a word that makes the run repeatable.

        Args:
            seed: Any word or number; None draws 256 bits.
        """
        root = secrets.token_bytes(_N_BYTES) if seed is None else hashlib.sha256(f"danlu seed {seed}".encode()).digest()
        return cls(root, {name: secrets.token_bytes(_N_BYTES) for name in STREAMS})

    def key(self, stream: str) -> bytes:
        """The 32-byte key of a stream: SHA-256(root ‖ name).

        Raises:
            KeyError: No such stream; a misspelt name must not become a stream of its own.
        """
        if stream not in STREAMS:
            raise KeyError(stream)
        return hashlib.sha256(self.root + stream.encode()).digest()

    def at(self, stream: str, *position: int | str) -> int:
        """A 63-bit seed for one position of a stream, for generators that take a number (``torch.manual_seed``).

        It is the first 63 bits of SHA-256(key ‖ position), the parts of the position joined by ``/``.
        """
        place = "/".join(str(part) for part in position).encode()
        return int.from_bytes(hashlib.sha256(self.key(stream) + place).digest()[:8], "big") >> 1

    def generator(self, stream: str, *position: int | str) -> np.random.Generator:
        """A NumPy generator (PCG64) for one position of a stream."""
        return np.random.Generator(np.random.PCG64(self.at(stream, *position)))

    def commitments(self) -> dict[str, str]:
        """SHA-256(key ‖ nonce) of every stream, in hexadecimal."""
        return {name: hashlib.sha256(self.key(name) + self.nonces[name]).hexdigest() for name in STREAMS}

    def save(self, path: Path) -> None:
        """Write root and nonces to a file that only its owner can read."""
        nonces = {name: nonce.hex() for name, nonce in self.nonces.items()}
        write_json(path, {"root": self.root.hex(), "nonces": nonces}, mode=0o600)

    @classmethod
    def load(cls, path: Path) -> Seeds:
        """Read what :meth:`save` wrote.

        Raises:
            CorruptError: The file is not a seed file.
        """
        stored = read_json(path)
        try:
            return cls(_secret(stored["root"]), {name: _secret(stored["nonces"][name]) for name in STREAMS})
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptError("not a seed file", where=str(path)) from error


def _secret(text: str) -> bytes:
    secret = bytes.fromhex(text)
    if len(secret) != _N_BYTES:
        raise ValueError(f"{len(secret)} bytes where {_N_BYTES} are due")
    return secret
