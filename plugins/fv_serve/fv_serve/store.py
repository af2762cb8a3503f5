"""The jobs, in SQLite beside the videos: what was accepted is on the disk before the client hears of it."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastvideo_core.errors import OutputError
from fv_serve.job import ENDED, Asked, Job, Status
from fv_serve.problems import ApiError

_VERSION = 1
_WAIT = 2.0
"""Seconds that a statement waits for another process that holds the database."""

_SCHEMA = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    asked TEXT NOT NULL,
    status TEXT NOT NULL,
    created_at REAL NOT NULL,
    started_at REAL,
    completed_at REAL,
    expires_at REAL,
    error_code TEXT,
    error_message TEXT
);
CREATE INDEX jobs_by_status ON jobs (status, number);
"""
_COLUMNS = "id, asked, status, number, created_at, started_at, completed_at, expires_at, error_code, error_message"


class Store:
    """Jobs by their ids; every method may be called from any thread, and is on the disk when it returns.

    Raises:
        OutputError: the file is no such database, or damaged, or cannot be opened. Of the methods: sqlite3.Error.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._lock = path, threading.RLock()
        try:
            self._connection = sqlite3.connect(path, timeout=_WAIT, isolation_level=None, check_same_thread=False)
            self._open()
        except sqlite3.Error as error:
            raise OutputError(
                f"the jobs in {str(path)!r} cannot be read: {error}; if another process holds the file, end that, else "
                "move it away: the videos beside it stay, but are not known any more"
            ) from error

    def _open(self) -> None:
        run = self._connection.execute
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")
        (found,) = run("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(f"it is damaged ({found})")
        (version,) = run("PRAGMA user_version").fetchone()
        (tables,) = run("SELECT count(*) FROM sqlite_master").fetchone()
        if version == 0 and not tables:
            self._connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
        elif version != _VERSION:
            raise sqlite3.DatabaseError(f"it is of version {version}, this one reads {_VERSION}")

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def add(self, job: Job, most: int) -> Job:
        """Accept a job as the last of the queue.

        Raises:
            ApiError: `most` are waiting.
        """
        with self._writing() as run:
            waiting = run("SELECT count(*) FROM jobs WHERE status = ?", (Status.QUEUED,)).fetchone()[0]
            if waiting >= most:
                raise ApiError(
                    429, f"{waiting} videos are waiting, which is the most; try again later", None, "queue_full"
                )
            asked, now = json.dumps(asdict(job.asked)), time.time()
            values = (job.id, asked, Status.QUEUED, now)
            run("INSERT INTO jobs (id, asked, status, created_at) VALUES (?, ?, ?, ?)", values)
            return self._one("WHERE id = ?", job.id)

    def get(self, job_id: str) -> Job | None:
        found = self._select("WHERE id = ?", job_id)
        return found[0] if found else None

    def page(self, after: str | None, limit: int, newest_first: bool) -> tuple[list[Job], bool] | None:
        """Jobs after another one, and whether there are more; None where there is no such other one."""
        sign, order = ("<", "DESC") if newest_first else (">", "ASC")
        with self._lock:
            if after is None:
                found = self._select(f"ORDER BY number {order} LIMIT ?", limit + 1)
            elif (job := self.get(after)) is None:
                return None
            else:
                found = self._select(f"WHERE number {sign} ? ORDER BY number {order} LIMIT ?", job.number, limit + 1)
        return found[:limit], len(found) > limit

    def unfinished(self) -> list[Job]:
        """Those that run or wait, in the order of the queue."""
        return self._select("WHERE status IN (?, ?) ORDER BY number", Status.QUEUED, Status.IN_PROGRESS)

    def ended(self) -> list[Job]:
        """Those that do not, the one that ended first in front."""
        return self._select("WHERE status IN (?, ?) ORDER BY completed_at, number", *ENDED)

    def place(self, job: Job) -> int:
        """How many wait before it."""
        with self._lock:
            sql = "SELECT count(*) FROM jobs WHERE status = ? AND number < ?"
            return int(self._connection.execute(sql, (Status.QUEUED, job.number)).fetchone()[0])

    def claim(self) -> Job | None:
        """The first of the queue, which is in progress from now on."""
        with self._writing() as run:
            found = self._select("WHERE status = ? ORDER BY number LIMIT 1", Status.QUEUED)
            if not found:
                return None
            values = (Status.IN_PROGRESS, time.time(), found[0].id)
            run("UPDATE jobs SET status = ?, started_at = ? WHERE id = ?", values)
            return self._one("WHERE id = ?", found[0].id)

    def put_back(self, job_id: str) -> bool:
        """Have a job wait again, in its old place; False where it was deleted meanwhile."""
        sql = "UPDATE jobs SET status = ?, started_at = NULL WHERE id = ?"
        with self._writing() as run:
            return bool(run(sql, (Status.QUEUED, job_id)).rowcount)

    def end(self, job_id: str, keep_seconds: float, error: tuple[str, str] | None = None) -> bool:
        """A job has ended, with a code and a message if it failed; False where it was deleted meanwhile."""
        now, (code, message) = time.time(), error or (None, None)
        status = Status.FAILED if error else Status.COMPLETED
        values = (status, now, now + keep_seconds, code, message, job_id)
        sql = "UPDATE jobs SET status = ?, completed_at = ?, expires_at = ?, error_code = ?, error_message = ?"
        with self._writing() as run:
            return bool(run(f"{sql} WHERE id = ?", values).rowcount)

    def remove(self, job_id: str) -> bool:
        with self._writing() as run:
            return bool(run("DELETE FROM jobs WHERE id = ?", (job_id,)).rowcount)

    @contextmanager
    def _writing(self) -> Iterator[Any]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection.execute
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _one(self, where: str, *values: Any) -> Job:
        return self._select(where, *values)[0]

    def _select(self, where: str, *values: Any) -> list[Job]:
        with self._lock, closing(self._connection.execute(f"SELECT {_COLUMNS} FROM jobs {where}", values)) as cursor:
            return [_job(row) for row in cursor]


def _job(row: Sequence[Any]) -> Job:
    job_id, asked, status, *rest = row
    return Job(job_id, Asked(**json.loads(asked)), Status(status), *rest)
