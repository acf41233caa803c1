"""The database of the index: where it is, its tables, and how it is written to by one process at a time.

A workspace's own SQLite file may be thrown away at any time: one that is damaged is, and an empty one takes its place.
A database that somebody named (``DANLU_INDEX``) may hold other things, and is left for them to look at.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL

from danlu.core.errors import BusyError, CorruptError, DanluError, UsageError
from danlu.core.files import explained, lock

__all__ = ["EVENTS", "FILES", "Database", "DiscardedError"]

_log = logging.getLogger(__name__)

_PATIENCE = 60
"""Seconds that a process waits for another that writes to the index."""
_LOCK = 826273
"""The number of our lock among those of a PostgreSQL database; any will do."""
_NETWORK_DISKS = {"afs", "beegfs", "ceph", "cifs", "fuse.glusterfs", "fuse.sshfs", "gpfs", "lustre", "nfs", "nfs4"}
_NETWORK_DISKS |= {"ocfs2", "smb3", "smbfs"}
"""File systems on which processes of several machines cannot share SQLite's log."""
_META = sa.MetaData()
FILES = sa.Table(
    "danlu_files_1",  # the number is the format's: another format is another table, and the old one is left alone
    _META,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("workspace", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("n_bytes", sa.BigInteger, nullable=False),
    sa.Column("n_lines", sa.Integer, nullable=False),
    sa.Column("last_bytes", sa.Integer, nullable=False),
    sa.Column("last_sha256", sa.Text, nullable=False),
    sa.UniqueConstraint("workspace", "name"),
)
"""How far each event file has been read, and the length and digest of the last line that was read."""
EVENTS = sa.Table(
    "danlu_events_1",
    _META,
    sa.Column("file", sa.Integer, sa.ForeignKey(FILES.c.id), primary_key=True, autoincrement=False),
    sa.Column("line", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("time", sa.Double, nullable=False),
    sa.Column("event", sa.Text, nullable=False),
    sa.Column("name", sa.Text),
    sa.Column("digest", sa.Text),
    sa.Column("id", sa.Text),
    sa.Column("request", sa.Text),
    sa.Column("input", sa.Integer),
    sa.Column("source", sa.Text),
    sa.Column("status", sa.Integer),
    sa.Column("seconds", sa.Double),
    sa.Column("body", sa.Text, nullable=False),
)
"""A row an event: the whole of it as it stands in its file (``body``), and what is searched for."""
_E = EVENTS.c
_OF_A_REQUEST = _E.request.is_not(None)
sa.Index("danlu_by_time_1", _E.event, _E.name, _E.time, _E.file, _E.line, _E.status, _E.seconds)
sa.Index("danlu_by_id_1", _E.id, _E.event)
sa.Index("danlu_by_request_1", _E.request, sqlite_where=_OF_A_REQUEST, postgresql_where=_OF_A_REQUEST)


class DiscardedError(CorruptError):
    """The workspace's own index was damaged, and there is an empty one now; whoever asked has to begin anew."""


class Database:
    """SQLite or PostgreSQL, with the tables in it.

    Args:
        url: ``sqlite:///FILE`` or ``postgresql://USER:PASSWORD@HOST/DATABASE``; None takes ``DANLU_INDEX``.
        file: The SQLite file where there is no URL.

    Raises:
        UsageError: Not such a URL, or SQLite on a network disk.
        CorruptError: The file that the URL names is no database.
        DanluError: It cannot be reached, or not be written to.
    """

    def __init__(self, url: str | None, file: Path) -> None:
        given = url or os.environ.get("DANLU_INDEX")
        self._url = _url(given, file)
        self._own = None if given else Path(str(self._url.database))
        self._engine = _engine(self._url)
        self._opened: int | None = None
        try:
            try:
                self.prepare()
            except DiscardedError:
                self.prepare()
        except BaseException:
            self.close()
            raise

    def prepare(self) -> None:
        """Make the tables where there are none: at first, and after somebody has done away with them.

        Raises:
            DiscardedError: The workspace's own file was damaged; there is none now.
            DanluError: As when it is opened.
        """
        if self._url.drivername == "sqlite" and (now := _inode(Path(str(self._url.database)))) != self._opened:
            self._engine.dispose()  # connections to a file that is not there any more
            self._opened = now
        with self.reading() as connection:
            there = sa.inspect(connection).has_table(EVENTS.name)
        if not there:
            with self.writing() as connection:
                _META.create_all(connection)
        if self._url.drivername == "sqlite":
            self._opened = _inode(Path(str(self._url.database)))

    @property
    def removal(self) -> str:
        """How a user does away with it, so that it is built again."""
        if self._url.drivername == "sqlite":
            return f"remove {self._url.database}"
        return f"drop its tables {EVENTS.name} and {FILES.name}"

    def close(self) -> None:
        """Let go of it."""
        self._engine.dispose()

    @contextlib.contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A connection to read by; nobody has to wait for it.

        Raises:
            DiscardedError: The workspace's own file was damaged; there is none now.
            DanluError: The database says no.
        """
        with self._told(), self._engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction that no other writes beside; if it fails, nothing has been written.

        Raises:
            BusyError: Another has been writing for a minute.
            DiscardedError: The workspace's own file was damaged; there is none now.
            DanluError: The database says no.
        """
        with self._told(), self._engine.begin() as connection:
            if self._url.drivername == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_PATIENCE}s'")
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK}, hashtext(current_schema()))")
            yield connection

    def add(self, connection: sa.Connection, rows: list[dict[str, Any]]) -> None:
        """Add rows to EVENTS.

        Args:
            connection: From :meth:`writing`.
            rows: Every column of each.
        """
        if self._url.drivername == "sqlite":
            connection.execute(sa.insert(EVENTS), rows)
            return
        # Not row by row: COPY takes half of the time.
        psycopg: Any = connection.connection.driver_connection
        with psycopg.cursor() as cursor, cursor.copy(f"COPY {EVENTS.name} FROM STDIN") as copy:
            for row in rows:
                copy.write_row([row[column.name] for column in EVENTS.columns])

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what a database says into advice."""
        try:
            yield
        except (sa.exc.DBAPIError, self._engine.dialect.loaded_dbapi.Error) as error:
            said = str(getattr(error, "orig", error)).strip()
            where = self._url.render_as_string(hide_password=True)
            if "malformed" in said or "not a database" in said:
                if self._own is not None:
                    self._discard(self._own, said)
                    advice = "do the same again: it is built anew from the event files"
                    raise DiscardedError(f"the index was damaged: {said}", where=where, advice=advice) from error
                advice = f"{self.removal}; it is built again from the event files"
                raise CorruptError(f"the index is damaged: {said}", where=self._url.database, advice=advice) from error
            if "locked" in said or "lock timeout" in said:
                what = f"another process has been writing to the index for {_PATIENCE} seconds"
                raise BusyError(what, where=where, advice="wait for it to end, or stop it") from error
            advice = "look whether the database is running, has room and may be written to (DANLU_INDEX)"
            raise DanluError(f"the index cannot be used: {said}", where=where, advice=advice) from error

    def _discard(self, file: Path, said: str) -> None:
        """Do away with a damaged file, unless another process has done so already."""
        self.close()
        with lock(file.with_name(f".{file.name}.lock"), holder="the damaged index"):
            if _is_sound(file):
                return
            with explained(file):
                for end in ("-wal", "-shm", ""):
                    file.with_name(file.name + end).unlink(missing_ok=True)
        _log.warning("the index was damaged (%s) and is built anew from the event files: %s", said, file)


def _inode(file: Path) -> int | None:
    """Which file is in a place; None: there is none."""
    try:
        return file.stat().st_ino
    except OSError:
        return None


def _is_sound(file: Path) -> bool:
    """Whether an SQLite file is whole, as one is that another process has made meanwhile."""
    try:
        with contextlib.closing(sqlite3.connect(file, timeout=_PATIENCE)) as connection:
            return bool(connection.execute("PRAGMA integrity_check(1)").fetchone() == ("ok",))
    except sqlite3.OperationalError:  # somebody is at work on it: nothing that could be thrown away
        return True
    except sqlite3.DatabaseError:
        return False


def _url(given: str | None, file: Path) -> URL:
    if not given:
        found = URL.create("sqlite", database=str(file))
    else:
        try:
            found = sa.make_url(given)
        except (sa.exc.ArgumentError, ValueError) as error:
            raise _no_url() from error
    if found.drivername == "postgresql":
        return found.set(drivername="postgresql+psycopg")
    if found.drivername != "sqlite" or not found.database or found.database == ":memory:":
        raise _no_url()
    path = Path(found.database).absolute()
    with explained(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    if (kind := _file_system(path.parent)) in _NETWORK_DISKS:
        advice = "set DANLU_INDEX to sqlite:///FILE on a disk of this machine, or to the URL of a PostgreSQL database"
        raise UsageError(f"SQLite does not work on a network disk ({kind})", where=str(path), advice=advice)
    return found.set(database=str(path))


def _no_url() -> UsageError:
    # What was given is not repeated: it may hold a password.
    advice = "write sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE"
    return UsageError("not the URL of an index", where="DANLU_INDEX", advice=advice)


def _engine(url: URL) -> sa.Engine:
    if url.drivername == "sqlite":
        engine = sa.create_engine(url, connect_args={"timeout": _PATIENCE})
        sa.event.listen(engine, "connect", _prepare_sqlite)
        return engine
    try:
        return sa.create_engine(url, pool_pre_ping=True, connect_args={"connect_timeout": 10})
    except ModuleNotFoundError as error:
        what = "an index in PostgreSQL needs psycopg, which is not installed"
        raise UsageError(what, where="DANLU_INDEX", advice="pip install 'danlu[postgres]'") from error


def _prepare_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # transactions begin where we say so, and not where Python's driver thinks
    connection.execute("PRAGMA journal_mode=WAL")  # who reads does not wait for who writes
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA cache_size=-65536")


def _file_system(folder: Path) -> str | None:
    """The kind of file system that a folder is on; None where the operating system does not say."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    except OSError:
        return None
    longest, found = 0, None
    for line in mounts:
        place, _, rest = line.partition(" - ")
        point = place.split(" ")[4].replace("\\040", " ")
        if folder.resolve().is_relative_to(point) and len(point) >= longest:
            longest, found = len(point), rest.split(" ")[0]
    return found
