"""Pauses after wrong passwords: guessing is slow, and nobody can keep the real user out for good.

Three counters, each with its own patience: account from one address, one address, and account from anywhere. The last
one does not hold for an address from which this account has signed in before, so an attacker elsewhere cannot keep an
administrator out of the usual work place. `hydrops-node user password` clears an account's pauses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Column, Engine, Float, Integer, RowMapping, String, Table, delete, insert, or_, select, update

from dicom_node.database import metadata, writing

FIRST_PAUSE_S: Final = 30.0
LONGEST_PAUSE_S: Final = 900.0
"""The first pause doubles with each further failure up to a quarter of an hour."""

FORGET_AFTER_S: Final = 86400.0
"""A counter without a failure for a day starts anew."""

PATIENCE: Final = {"account-address": 5, "address": 20, "account": 20}
"""Failures before the first pause. Several people may share an address, so it gets more patience than a person."""

_failures = Table(
    "sign_in_failures",
    metadata,
    Column("scope", String(16), primary_key=True),
    Column("account", String(64), primary_key=True),
    Column("address", String(64), primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("last_at", Float, nullable=False),
)

_usual = Table(
    "sign_in_addresses",
    metadata,
    Column("account", String(64), primary_key=True),
    Column("address", String(64), primary_key=True),
    Column("last_at", Float, nullable=False),
)


class SignInPauses:
    """The counters on one state database; every method is one transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def remaining_s(self, account: str, address: str, *, at: float) -> float:
        """How long this account has to wait at this address; 0.0 when it may try now.

        A failure in the future (the clock was set back) counts as one of now, or nobody could sign in for so long.
        """
        account, address = account[:64], address[:64]
        with self._engine.connect() as connection:
            rows = connection.execute(select(_failures).where(_concerns(account, address))).mappings().all()
            usual = connection.execute(
                select(_usual.c.account).where(_usual.c.account == account, _usual.c.address == address)
            ).first()
        if any(row["last_at"] > at for row in rows):
            rows = self._brought_back(account, address, at)
        judged = [row for row in rows if not (row["scope"] == "account" and usual is not None)]
        return max([0.0, *(_pause_until(row) - at for row in judged)])

    def _brought_back(self, account: str, address: str, at: float) -> Sequence[RowMapping]:
        """The counters that concern this account and address, none of them in the future any more."""
        with writing(self._engine) as connection:
            connection.execute(update(_failures).where(_failures.c.last_at > at).values(last_at=at))
            return connection.execute(select(_failures).where(_concerns(account, address))).mappings().all()

    def failed(self, account: str, address: str, *, at: float) -> None:
        """Count a wrong password, or a name that nobody has."""
        account, address = account[:64], address[:64]
        with writing(self._engine) as connection:
            connection.execute(delete(_failures).where(_failures.c.last_at < at - FORGET_AFTER_S))
            for key in _keys(account, address):
                where = [_failures.c[name] == value for name, value in key.items()]
                known = connection.execute(
                    update(_failures).where(*where).values(failures=_failures.c.failures + 1, last_at=at)
                )
                if known.rowcount == 0:
                    connection.execute(insert(_failures).values(**key, failures=1, last_at=at))

    def succeeded(self, account: str, address: str, *, at: float) -> None:
        """Forget this account's failures here, and remember that it is used from here."""
        account, address = account[:64], address[:64]
        with writing(self._engine) as connection:
            connection.execute(
                delete(_failures).where(_failures.c.account == account, _failures.c.address.in_([address, ""]))
            )
            where = (_usual.c.account == account, _usual.c.address == address)
            if connection.execute(update(_usual).where(*where).values(last_at=at)).rowcount == 0:
                connection.execute(insert(_usual).values(account=account, address=address, last_at=at))

    def clear(self, account: str) -> None:
        """Forget everything about an account: it has a new password, or is gone."""
        with writing(self._engine) as connection:
            connection.execute(delete(_failures).where(_failures.c.account == account))
            connection.execute(delete(_usual).where(_usual.c.account == account))


def _keys(account: str, address: str) -> list[dict[str, str]]:
    return [
        {"scope": "account-address", "account": account, "address": address},
        {"scope": "address", "account": "", "address": address},
        {"scope": "account", "account": account, "address": ""},
    ]


def _concerns(account: str, address: str) -> Any:
    return or_(
        *(
            (_failures.c.scope == key["scope"])
            & (_failures.c.account == key["account"])
            & (_failures.c.address == key["address"])
            for key in _keys(account, address)
        )
    )


def _pause_until(row: Any) -> float:
    over = row["failures"] - PATIENCE[row["scope"]]
    if over < 0:
        return 0.0
    # The exponent is bounded: 2.0 ** 1024 raises, and the cap is reached long before.
    return float(row["last_at"] + min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(over, 30)))
