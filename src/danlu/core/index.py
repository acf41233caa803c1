"""The index: what the event files hold, in a database that can be asked, and that can be thrown away.

The truth is the workspace's event files (:mod:`danlu.core.events`). The index is SQLite in the workspace, or PostgreSQL
for a team: a row an event, and how far each file has been read. A part of a file and the note that it has been read are
one transaction, so that a crash leaves nothing twice and nothing out; who takes events in holds the database's lock,
so that any number of processes may do so at once. An index that is damaged, was removed, or is of another format than
this danlu's is built anew from the event files by itself.

Several workspaces, on several machines, may share a database. Each has an identity of its own (the file ``identity`` in
its folder); what is asked is answered from all of them. Who wants them apart gives each a database of its own.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
import sqlalchemy as sa

from danlu.core.database import EVENTS, FILES, Database, DiscardedError
from danlu.core.errors import CorruptError, DanluError
from danlu.core.events import event_of
from danlu.core.files import explained
from danlu.core.workspace import Workspace

__all__ = ["Index"]

_AT_ONCE = 20_000
"""Events that are taken in in one transaction ..."""
_BYTES_AT_ONCE = 16 * 2**20
"""... unless they are longer than this together."""
_LONGEST = 200
"""Characters of what can be searched for; of what is longer, the SHA-256 is kept."""

_E = EVENTS.c
_FIRST = (_E.time, _E.file, _E.line)
_LATEST = tuple(column.desc() for column in _FIRST)


class Index:
    """The events of a workspace, or of all workspaces that share its database; :meth:`open` makes one.

    It may be used by several threads; not by a process that was forked from the one that opened it.

    Args:
        workspace: Whose event files are taken in.
        database: Where to.
    """

    def __init__(self, workspace: Workspace, database: Database) -> None:
        self._folder = workspace.events
        self._workspace = _identity(workspace.root / "identity")
        self._database = database

    @classmethod
    def open(cls, workspace: Workspace, url: str | None = None) -> Self:
        """Open a workspace's index; it is made where there is none.

        Args:
            workspace: The workspace.
            url: ``sqlite:///FILE`` or ``postgresql://USER:PASSWORD@HOST/DATABASE``. None takes ``DANLU_INDEX``, or
                ``index.sqlite`` in the workspace.

        Raises:
            UsageError: Not such a URL, or SQLite on a network disk.
            CorruptError: The file that the URL names is no database.
            DanluError: The database cannot be reached, or not be written to.
        """
        return cls(workspace, Database(url, workspace.root / "index.sqlite"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    def refresh(self) -> int:
        """Take in what has been written since; a last line that is not whole yet is left for later.

        An index that is found to be damaged here is built anew. Where that is found in what is asked of it later, there
        is an error, and the next call builds it.

        Returns:
            The number of events that this call took in.

        Raises:
            CorruptError: A line is not an event, or a file is not what it was when it was read.
            BusyError: Another process has been writing to the index for a minute.
        """
        try:
            return self._take_in()
        except DiscardedError:
            return self._take_in()

    def _take_in(self) -> int:
        self._database.prepare()
        with self._database.reading() as connection:
            read = connection.execute(sa.select(FILES).where(FILES.c.workspace == self._workspace)).all()
        known = {row.name: row for row in read}
        n = 0
        for path in sorted(self._folder.glob("*.jsonl")):
            n += self._take_new(path, known.pop(path.name, None))
        if known:
            raise self._changed(self._folder / min(known), "is gone")
        return n

    def events(
        self,
        event: str,
        *,
        name: str | None = None,
        digest: str | None = None,
        after: float | None = None,
        before: float | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Whole events, oldest first.

        Args:
            event: Of which sort: ``request``, ``feedback``, ``alert`` ...
            name: Of which served model; None: of any.
            digest: Of which artifact; None: of any.
            after: Seconds since 1970; from then on.
            before: Up to then, and not including it.
        """
        query = sa.select(_E.body).where(*_which(event, name, digest, after, before)).order_by(*_FIRST)
        for row in self._rows(query):
            yield json.loads(row.body)

    def find(self, event: str, identity: str) -> dict[str, Any] | None:
        """The latest event of a sort with an id, whole, or None."""
        query = sa.select(_E.body).where(*_which(event), _E.id == _word(identity)).order_by(*_LATEST).limit(1)
        with self._database.reading() as connection:
            body = connection.execute(query).scalar()
        return None if body is None else json.loads(body)

    def request(self, identity: str) -> dict[str, Any] | None:
        """The request of an id, or None."""
        return self.find("request", identity)

    def feedback(
        self, name: str, *, digest: str | None = None, after: float | None = None, before: float | None = None
    ) -> Iterator[dict[str, Any]]:
        """The feedback that counts, oldest first: the latest of each request, input and source.

        Feedback of no request stands for itself.

        Args:
            name: The served model.
            digest: Of which artifact; None: of any.
            after: Seconds since 1970; given then or later.
            before: Given before; what counted then.

        Yields:
            The feedback, with ``asked``: its request, or None where none is known.
        """
        same = (sa.func.coalesce(_E.request, _E.id), _E.input, _E.source)
        rank = sa.func.row_number().over(partition_by=same, order_by=_LATEST).label("rank")
        given = sa.select(EVENTS, rank).where(*_which("feedback", name, digest, after, before)).subquery()
        asked = EVENTS.alias()
        query = (
            sa.select(given.c.body, asked.c.body.label("asked"))
            .outerjoin_from(given, asked, (asked.c.id == given.c.request) & (asked.c.event == "request"))
            .where(given.c.rank == 1)
            .order_by(given.c.time, given.c.file, given.c.line)
        )
        for row in self._rows(query):
            yield {**json.loads(row.body), "asked": None if row.asked is None else json.loads(row.asked)}

    def open_questions(self, name: str, n: int) -> list[dict[str, Any]]:
        """At most n questions that no labeller has answered, oldest first; what was asked twice is told once."""
        asked = _open_questions(name)
        query = sa.select(asked.c.body).where(asked.c.rank == 1)
        ordered = query.order_by(asked.c.time, asked.c.file, asked.c.line).limit(n)
        return [json.loads(row.body) for row in self._rows(ordered)]

    def n_open_questions(self, name: str) -> int:
        """How many questions no labeller has answered."""
        asked = _open_questions(name)
        query = sa.select(sa.func.count()).select_from(asked).where(asked.c.rank == 1)
        with self._database.reading() as connection:
            return connection.execute(query).scalar_one()

    def traffic(self, name: str, seconds: float, after: float) -> list[dict[str, Any]]:
        """Requests in buckets of so many seconds, from a time on; a bucket without any is left out.

        Args:
            name: The served model.
            seconds: The length of a bucket; buckets begin at multiples of it.
            after: Seconds since 1970.

        Returns:
            Of each bucket, oldest first: ``start`` (seconds since 1970), ``n``, ``n_failed`` (the server's fault:
            status 500 and above), and ``p50 p95 p99``, quantiles of the seconds that the requests took.
        """
        which = (*_which("request", name, after=after), _E.status.is_not(None), _E.seconds.is_not(None))
        rows = self._rows(sa.select(_E.time, _E.status, _E.seconds).where(*which))
        time, status, took = np.fromiter(itertools.chain.from_iterable(rows), dtype=float).reshape(-1, 3).T
        bucket = np.floor(time / seconds)
        order = np.argsort(bucket, kind="stable")
        starts, first = np.unique(bucket[order], return_index=True)
        found = []
        for start, mine in zip(starts.tolist(), np.split(order, first)[1:], strict=True):
            p50, p95, p99 = np.quantile(took[mine], (0.5, 0.95, 0.99)).tolist()
            n_failed = int((status[mine] >= 500).sum())
            bucket_facts = {"start": start * seconds, "n": len(mine), "n_failed": n_failed}
            found.append({**bucket_facts, "p50": p50, "p95": p95, "p99": p99})
        return found

    def _take_new(self, path: Path, row: sa.Row[Any] | None) -> int:
        """Take in what a file has that was not read; the number of events in it."""
        try:
            if row is not None and not self._has_more(path, row):
                return 0
            return sum(iter(lambda: self._take(path), 0))
        except OSError as error:
            what = f"an event file cannot be read: {error.strerror}"
            raise DanluError(what, where=str(path), advice="look whose it is, and whether its disk is well") from error

    def _take(self, path: Path) -> int:
        """Take in the next part of a file; the number of events in it."""
        key = {"workspace": self._workspace, "name": path.name}
        with self._database.writing() as connection:
            row = connection.execute(sa.select(FILES).filter_by(**key)).one_or_none()
            with path.open("rb") as file:
                if row is not None:
                    self._check(path, file, row)
                lines = _next_lines(file)
            if not lines:
                return 0
            n_lines = row.n_lines if row else 0
            events = [_columns(path, number, line) for number, line in enumerate(lines, start=n_lines + 1)]
            facts = {
                "n_bytes": (row.n_bytes if row else 0) + sum(map(len, lines)),
                "n_lines": n_lines + len(lines),
                "last_bytes": len(lines[-1]),
                "last_sha256": hashlib.sha256(lines[-1]).hexdigest(),
            }
            if row is None:
                number = connection.execute(sa.insert(FILES).values(**key, **facts).returning(FILES.c.id)).scalar_one()
            else:
                number = row.id
                connection.execute(sa.update(FILES).where(FILES.c.id == number).values(**facts))
            self._database.add(connection, [{"file": number, **each} for each in events])
        return len(lines)

    def _has_more(self, path: Path, row: sa.Row[Any]) -> bool:
        """Whether a file has grown since it was read."""
        with path.open("rb") as file:
            self._check(path, file, row)
            return bool(file.read(1))

    def _check(self, path: Path, file: IO[bytes], row: sa.Row[Any]) -> None:
        """Go to where reading ended; what was read last must still be there."""
        file.seek(row.n_bytes - row.last_bytes)
        if hashlib.sha256(file.read(row.last_bytes)).hexdigest() != row.last_sha256:
            raise self._changed(path, "was changed")

    def _changed(self, path: Path, how: str) -> CorruptError:
        return CorruptError(
            f"an event file that the index has read {how}",
            where=str(path),
            advice=f"restore it from a copy; or, if that was meant, {self._database.removal}: the index is built anew",
        )

    def _rows(self, query: sa.Select[Any]) -> Iterator[sa.Row[Any]]:
        with (
            self._database.reading() as connection,
            connection.execution_options(yield_per=1_000).execute(query) as rows,
        ):
            yield from rows


def _which(
    event: str,
    name: str | None = None,
    digest: str | None = None,
    after: float | None = None,
    before: float | None = None,
) -> list[sa.ColumnElement[bool]]:
    """Conditions for those events."""
    found = [_E.event == _word(event)]
    if name is not None:
        found.append(_E.name == _word(name))
    if digest is not None:
        found.append(_E.digest == _word(digest))
    if after is not None:
        found.append(_E.time >= after)
    if before is not None:
        found.append(_E.time < before)
    return found


def _open_questions(name: str) -> sa.Subquery:
    """Questions that no labeller has answered; where the same was asked again, the first has rank 1."""
    answer = EVENTS.alias()
    answered = sa.exists().where(
        answer.c.event == "feedback",
        answer.c.request == _E.request,
        answer.c.input == _E.input,
        answer.c.source.startswith("labeller:"),
    )
    rank = sa.func.row_number().over(partition_by=(_E.request, _E.input), order_by=_FIRST).label("rank")
    return sa.select(EVENTS, rank).where(*_which("question", name), ~answered).subquery()


def _identity(path: Path) -> str:
    """Which workspace this is, wherever it is mounted; drawn once."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            found = file.read()
            if not found.endswith("\n"):  # none yet, or cut short by a crash
                file.truncate(0)
                found = f"{uuid.uuid4().hex}\n"
                file.write(found)
                file.flush()
                os.fsync(file.fileno())
    return found.strip()


def _next_lines(file: IO[bytes]) -> list[bytes]:
    """The next whole lines of a file."""
    found: list[bytes] = []
    n_bytes = 0
    for line in itertools.islice(file, _AT_ONCE):
        if not line.endswith(b"\n"):
            break
        found.append(line)
        n_bytes += len(line)
        if n_bytes >= _BYTES_AT_ONCE:
            break
    return found


def _columns(path: Path, number: int, line: bytes) -> dict[str, Any]:
    """A line of a file as a row."""
    event = event_of(line, f"{path}:{number}")
    source = event.get("source")
    return {
        "line": number,
        "time": float(event["time"]),
        "event": _word(event["event"]),
        **{key: _word(event.get(key)) for key in ("name", "digest", "id", "request")},
        "input": _whole(event.get("index", 0)),
        "source": _word(f"{source.get('kind')}:{source.get('id')}") if isinstance(source, dict) else None,
        "status": _whole(event.get("status")),
        "seconds": _number(event.get("seconds")),
        "body": line[:-1].decode(),
    }


def _word(value: object) -> str | None:
    """What every database can hold and search for: no NUL, no half of a surrogate pair, not too long."""
    if not isinstance(value, str):
        return None
    if len(value) > _LONGEST:
        return f"sha256:{hashlib.sha256(json.dumps(value).encode()).hexdigest()}"
    return value if value.isprintable() else json.dumps(value)


def _number(value: object) -> float | None:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 2**63:
        return None
    return float(value)


def _whole(value: object) -> int | None:
    """A whole number that every database can hold."""
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31 else None
