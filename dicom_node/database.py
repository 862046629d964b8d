"""The state database: SQLite beside the spool by default, PostgreSQL by URL.

SQLite runs in WAL with ``synchronous=FULL``: after a simulated power cut 50 of 50 commits were there; with
NORMAL none was. Every room (spool, outbox, ledger) declares its own tables on `metadata`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Float,
    MetaData,
    create_engine,
    event,
    literal_column,
    make_url,
    text,
)
from sqlalchemy.exc import DatabaseError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from dicom_node.errors import ConfigError

metadata = MetaData()

DATABASE_AWAY: Final = (OperationalError, InterfaceError, PoolTimeoutError)
"""What a database raises that is busy, full, restarting or gone; it passes by itself, and the same is tried again."""


PEER_GONE_S: Final = 20
"""A connection to PostgreSQL whose other end has not answered for so long is given up, at either end.

A machine that is cut off in the middle of a transaction holds the rows that it was about to change, until the server
ends that transaction; and whoever waits for an answer that cannot come waits for TCP, which by itself takes hours.
"""


_ONE_AT_A_TIME: Final = text("SELECT pg_advisory_xact_lock(hashtextextended('hydrops-node tables', 0))")
"""PostgreSQL: of processes that start together with a newer version, the second would fail on what the first makes."""


def bounded(url: str) -> str:
    """The address with `PEER_GONE_S` for PostgreSQL, as far as it says nothing of its own; others as they are."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "postgresql":
        return url
    limits = {
        "connect_timeout": str(PEER_GONE_S),
        "keepalives_idle": str(PEER_GONE_S // 2),
        "keepalives_interval": "5",
        "keepalives_count": "2",
        "tcp_user_timeout": str(PEER_GONE_S * 1000),
        "options": f"-c idle_in_transaction_session_timeout={PEER_GONE_S * 1000}",
    }
    missing = {name: value for name, value in limits.items() if name not in parsed.query}
    return parsed.update_query_dict(missing).render_as_string(hide_password=False)


def database_time(engine: Engine) -> ColumnElement[float]:
    """POSIX seconds now by the clock of the database: one clock for all machines that work on it."""
    if engine.dialect.name == "sqlite":
        return literal_column("((julianday('now') - 2440587.5) * 86400.0)", Float)
    return literal_column("extract(epoch from clock_timestamp())", Float)


def open_database(url: str, *, busy_timeout_s: float = 30.0) -> Engine:
    """A connected engine with all declared tables present.

    Parameters
    ----------
    url
        ``sqlite:////absolute/path.db`` or ``postgresql+psycopg://user@host/name``.
    busy_timeout_s
        How long a writer waits for another writer before it raises.

    Raises
    ------
    ConfigError
        If the SQLite file is damaged so that it cannot even be opened, see `require_whole`; or if PostgreSQL refuses
        the tables.
    """
    # A failed statement ends up in a log, and its parameters may be what somebody searched for: a patient's name.
    engine = create_engine(bounded(url), pool_pre_ping=not url.startswith("sqlite"), hide_parameters=True)
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def _durable(connection: Any, _record: Any) -> None:
            connection.isolation_level = None  # we say BEGIN ourselves, below
            cursor = connection.cursor()
            cursor.execute(f"PRAGMA busy_timeout={int(busy_timeout_s * 1000)}")
            cursor.execute("PRAGMA journal_mode=WAL")
            cursor.execute("PRAGMA synchronous=FULL")
            cursor.execute("PRAGMA foreign_keys=ON")
            cursor.execute("PRAGMA secure_delete=ON")  # what was erased is not to stand in a free page of the file
            cursor.close()

        @event.listens_for(engine, "begin")
        def _begin(connection: Any) -> None:
            immediate = connection.get_execution_options().get("write_lock_at_once", False)
            connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    try:
        with writing(engine) as connection:  # with the write lock, or it fails where another process writes meanwhile
            if engine.dialect.name != "sqlite":
                connection.execute(_ONE_AT_A_TIME)
            metadata.create_all(connection)
            _add_new_indexes(connection)
    except OperationalError:  # busy, full, read-only or away: that passes
        raise
    except DatabaseError as error:
        if engine.dialect.name != "sqlite":
            raise ConfigError(
                f"{engine.url.database}: PostgreSQL does not let the node make its tables "
                f"({str(error.orig).splitlines()[0]}); its user needs CREATE on the schema"
            ) from None
        raise _damaged(engine, str(error.orig)) from None
    return engine


def require_whole(engine: Engine) -> None:
    """Nothing if every page of the SQLite file hangs together; a node must not go on writing into a damaged one.

    Raises
    ------
    ConfigError
        If it is damaged; says what is safe to do. PostgreSQL looks after itself and is not asked.
    """
    if engine.dialect.name != "sqlite":
        return
    try:
        with engine.connect() as connection:
            verdict = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one())
    except OperationalError:
        raise
    except DatabaseError as error:
        verdict = str(error.orig)
    if verdict != "ok":
        raise _damaged(engine, verdict)


def _damaged(engine: Engine, verdict: str) -> ConfigError:
    return ConfigError(
        f"{engine.url.database}: the state database is damaged ({verdict.splitlines()[0]}). Nothing was changed. Move "
        "it and the files beside it that begin with its name to another place and start again: every image that was "
        "acknowledged lies in the spool folder and is indexed anew, and its study is examined again"
    )


def _add_new_indexes(connection: Connection) -> None:
    """Indexes that a newer version declares on tables that are there already; `create_all` passes those over."""
    for table in metadata.tables.values():
        for index in table.indexes:
            index.create(connection, checkfirst=True)


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction that only reads, and in which every statement sees the database as it was at the first."""
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":  # SQLite knows nothing else
            connection.execution_options(isolation_level="REPEATABLE READ")
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that writes: committed when the block ends, rolled back when it raises.

    On SQLite it takes the write lock at its start; a reading transaction that turns into a writing one fails with
    "database is locked" as soon as somebody else wrote in between, whatever the busy timeout.
    """
    with engine.connect().execution_options(write_lock_at_once=True) as connection, connection.begin():
        yield connection
