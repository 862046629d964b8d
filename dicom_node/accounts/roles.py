"""The three roles, each with every right of the one before."""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class Role(IntEnum):
    """VIEWER looks; READER also records reviews; ADMIN also acts on studies and changes the node."""

    VIEWER = 1
    READER = 2
    ADMIN = 3

    @property
    def word(self) -> str:
        """How the role is written in the database and on the command line."""
        return self.name.lower()


ROLES: Final = {role.word: role for role in Role}
"""By word."""
