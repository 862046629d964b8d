"""Who may use the dashboard.

hydrops-node user add ada --role admin       a new user; asks for the password
hydrops-node user list                       everybody with role and age of the password
hydrops-node user password ada               a new password; ends open sessions and pauses after wrong tries
hydrops-node user role ada --role reader     another role, from the next click on
hydrops-node user remove ada                 take the user away; ends open sessions

Roles: viewer looks, reader also records reviews, admin also acts on studies and changes the node. The password is
typed at the prompt, or is the first line of standard input; it never stands in the command itself.
"""

from __future__ import annotations

import argparse
import getpass
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicom_node.errors import UnusableInput

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from dicom_node.accounts.roles import Role
    from dicom_node.accounts.users import Users
    from dicom_node.audit import AuditAction

DAY_S: Final = 86400.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `user`."""
    parser.add_argument("what", choices=("add", "list", "password", "role", "remove"), help="see above")
    parser.add_argument("name", nargs="?", metavar="NAME", help="letters, digits, '-', '_', '.' or '@'")
    parser.add_argument("--role", choices=("viewer", "reader", "admin"), help="add and role: what the user may do")
    parser.add_argument("--config", default="config/node.toml", metavar="NODE_TOML", help="default: %(default)s")


def run(arguments: argparse.Namespace) -> int:
    """Change or show the users, and note changes in the audit trail."""
    from dicom_node.accounts.users import Users
    from dicom_node.cli.os_user import os_user
    from dicom_node.cli.state_folder import prepare
    from dicom_node.cli.wiring import audit_trail, load_settings
    from dicom_node.database import open_database

    loaded = load_settings(Path(arguments.config))
    prepare(loaded.state_dir)
    engine = open_database(loaded.database_url)
    try:
        if arguments.what == "list":
            print(_table(Users(engine)))
            return 0
        if not arguments.name:
            raise UnusableInput(f"user {arguments.what}: expected a NAME")
        action, detail = _change(arguments, engine)
        audit_trail(loaded).record(action, actor=os_user(), detail=f"{arguments.name}{detail}")
    finally:
        engine.dispose()
    print(f"user {arguments.name}: {_DONE[arguments.what]}")
    return 0


def _change(arguments: argparse.Namespace, engine: Engine) -> tuple[AuditAction, str]:
    """Do it; what the audit trail says about it."""
    from dicom_node.accounts.pauses import SignInPauses
    from dicom_node.accounts.sessions import SessionLimits, Sessions
    from dicom_node.accounts.users import Users
    from dicom_node.audit import AuditAction

    users, name = Users(engine), arguments.name
    if arguments.what == "add":
        users.add(name, _role(arguments), _password(name), at=time.time())
        return AuditAction.USER_ADDED, f", role {arguments.role}"
    if arguments.what == "role":
        users.set_role(name, _role(arguments))
        return AuditAction.USER_CHANGED, f", role {arguments.role}"
    if arguments.what == "password":
        _existing(users, name)
        users.set_password(name, _password(name), at=time.time())
        SignInPauses(engine).clear(name)
        Sessions(engine, SessionLimits()).close_all(name)  # also one opened with the old password during the hashing
        return AuditAction.USER_CHANGED, ", new password"
    users.remove(name)
    SignInPauses(engine).clear(name)
    Sessions(engine, SessionLimits()).close_all(name)
    return AuditAction.USER_REMOVED, ""


_DONE: Final = {"add": "added", "password": "has a new password", "role": "has another role", "remove": "removed"}


def _role(arguments: argparse.Namespace) -> Role:
    from dicom_node.accounts.roles import ROLES

    if arguments.role is None:
        raise UnusableInput(f"user {arguments.what}: expected --role viewer, reader or admin")
    return ROLES[arguments.role]


def _existing(users: Users, name: str) -> None:
    """Nobody is to think up a password for a user who is not there."""
    if users.get(name) is None:
        raise UnusableInput(f"user {name!r}: there is no such user; `hydrops-node user list` shows all")


def _password(name: str) -> str:
    """The new password, typed twice at a terminal, or the first line of standard input."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    first = getpass.getpass(f"password of {name}: ")
    if getpass.getpass("the same again: ") != first:
        raise UnusableInput("password: the two were not the same")
    return first


def _table(users: Users) -> str:
    found = users.all()
    if not found:
        return "no users yet; make one with `hydrops-node user add NAME --role admin`"
    now = time.time()
    return "\n".join(
        f"{one.name:24}  {one.role.word:8}  password {max(0, int((now - one.password_at) // DAY_S))} d old"
        for one in found
    )
