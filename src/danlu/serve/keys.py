"""API keys: shown once when they are made, kept as hashes, with what each may do and how often.

A key is ``danlu-<id>-<secret>``: the id finds its record, the secret has 256 random bits. A hash of so much randomness
cannot be searched, so that a plain SHA-256 is kept of it; a slow one would only make every request slower.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from danlu.core.config import Config
from danlu.core.errors import CorruptError, UsageError
from danlu.core.files import lock, read_json, write_json

__all__ = ["Key", "KeyConfig", "KeyRing", "Scope", "make_key"]

Scope = Literal["ask", "metrics", "label"]
"""What a key may be used for.

``ask``: ask the models, have answers explained, and say how good an answer to one's own key was.
``metrics``: see how the models do, as numbers for machines (``/metrics``) and as the page's board.
``label``: see what others asked, and say what the right answer is. A key that was made before there was this scope
does not have it.
"""
_USUAL: tuple[Scope, ...] = ("ask",)
"""What a key is for unless it is said: numbers and what others asked are not everybody's to see."""

_FORM = re.compile(r"danlu-([0-9a-f]{12})-[A-Za-z0-9_-]{43}")
_NOBODY = "0" * 64


class KeyConfig(Config):
    """A key that is to be made."""

    keys: Path | None = None
    """The file of API keys; null: ``keys.json`` in the workspace."""
    scopes: tuple[Scope, ...] = _USUAL
    """What it may be used for: ask the models; metrics: see how they do, on the page's board, too; label: see what was
    asked, and say what is right."""
    per_minute: int | None = Field(None, gt=0)
    """Requests that it may be used for in a minute; null: as many as come."""


@dataclass(frozen=True, kw_only=True)
class Key:
    """What is kept of a key.

    Attributes:
        id: Its name in logs; no secret.
        name: Whose it is, in the words of whoever made it.
        hash: SHA-256 of the whole key, in hexadecimal.
        scopes: What it may be used for.
        per_minute: Requests that it may be used for in a minute; None: as many as come.
        created: When it was made, in seconds since 1970.
    """

    id: str
    name: str
    hash: str
    scopes: tuple[Scope, ...]
    per_minute: int | None
    created: float


def make_key(path: Path, name: str, scopes: Sequence[Scope] = _USUAL, per_minute: int | None = None) -> tuple[str, Key]:
    """Make a key and add it to a file.

    Args:
        path: The file of keys; made if it is not there, readable by its owner only.
        name: Whose it is.
        scopes: What it may be used for.
        per_minute: Requests a minute; None: as many as come.

    Returns:
        The key, which is kept nowhere and cannot be shown again, and what is kept of it.

    Raises:
        UsageError: The name is empty or taken, there is no scope, or the rate is not positive.
        CorruptError: The file is no file of keys.
    """
    if not name.strip() or not name.isprintable():
        raise UsageError("a key needs a name", advice="name whoever will use it")
    if not scopes or (per_minute is not None and per_minute < 1):
        raise UsageError("a key with which nothing may be done", advice="give a scope, and a positive rate")
    identity = secrets.token_hex(6)
    key = f"danlu-{identity}-{secrets.token_urlsafe(32)}"
    made = Key(
        id=identity,
        name=name,
        hash=_hashed(key),
        scopes=tuple(scopes),
        per_minute=per_minute,
        created=time.time(),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with lock(path.with_name(f".{path.name}.lock"), holder="the keys"):
        kept = _read(path)
        if any(other.name == name for other in kept):
            raise UsageError(f"there is a key of this name already: {name}", where=str(path), advice="take another")
        write_json(path, {"keys": [asdict(each) for each in [*kept, made]]}, mode=0o600)
    return key, made


class KeyRing:
    """The keys of a file, as they are now: a key that is taken out of the file stops to work at once.

    Args:
        path: The file; where there is none, there are no keys.
        clock: Seconds that only grow.

    Attributes:
        needed: Whether a key is needed: from the first moment that there is one, and ever after.

    Raises:
        CorruptError: The file is no file of keys.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._seen: tuple[int, int, int] | None = None
        self._keys: dict[str, Key] = {}
        self._budgets: dict[str, tuple[float, float]] = {}
        self.needed = False
        self._look()

    def find(self, given: str) -> Key | None:
        """The record of a key, or None; it takes as long whether the id, the secret or nothing is right.

        Raises:
            CorruptError: The file has become no file of keys.
        """
        self._look()
        form = _FORM.fullmatch(given)
        found = self._keys.get(form[1]) if form else None
        right = hmac.compare_digest(_hashed(given), _NOBODY if found is None else found.hash)
        return found if right else None

    def look(self) -> bool:
        """Read the file again if it has changed; whether a key is needed.

        Raises:
            CorruptError: The file has become no file of keys.
        """
        self._look()
        return self.needed

    def wait(self, key: Key) -> float:
        """Count a request of a key: 0 if it may be answered, otherwise the seconds after which one may."""
        if key.per_minute is None:
            return 0.0
        now = self._clock()
        left, then = self._budgets.get(key.id, (float(key.per_minute), now))
        left = min(float(key.per_minute), left + (now - then) * key.per_minute / 60)
        if left < 1:
            self._budgets[key.id] = (left, now)
            return (1 - left) * 60 / key.per_minute
        self._budgets[key.id] = (left - 1, now)
        return 0.0

    def _look(self) -> None:
        try:
            facts = self._path.stat()
        except FileNotFoundError:
            self._keys = {}
            return
        seen = (facts.st_ino, facts.st_mtime_ns, facts.st_size)
        if seen != self._seen:
            self._keys = {}  # if what is there now cannot be read, nobody gets in
            self._keys = {key.id: key for key in _read(self._path)}
            self._seen = seen
        self.needed = self.needed or bool(self._keys)


def _hashed(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _read(path: Path) -> list[Key]:
    if not path.exists():
        return []
    try:
        return [Key(**{**row, "scopes": tuple(row["scopes"])}) for row in read_json(path)["keys"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise CorruptError(f"not a file of keys: {error}", where=str(path), advice="restore it from a copy") from error
