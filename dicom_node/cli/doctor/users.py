"""Whether somebody may sign in to a dashboard or viewer that a network reaches; without, the node does not start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import create_engine, inspect, make_url
from sqlalchemy.exc import SQLAlchemyError

from dicom_node.accounts.users import Users, users_table
from dicom_node.cli.doctor.checkup import Line, Site, ok, problem, warning
from dicom_node.cli.exposure import check_exposure
from dicom_node.database import bounded
from dicom_node.errors import ConfigError

if TYPE_CHECKING:
    from dicom_node.settings import LoadedSettings


def check(site: Site) -> Iterator[Line]:
    """One line: whether the users that there are suffice for where dashboard and viewer are shown."""
    try:
        users = count_users(site.loaded)
    except SQLAlchemyError as error:
        yield warning(
            f"the users cannot be read from the state database ({type(error).__name__})",
            "is the database server up, and is this the user that runs the node?",
        )
        return
    try:
        check_exposure(site.loaded, users=users)  # TLS, its other subject, was judged with the configuration
    except ConfigError as error:
        found = str(error).partition("; ")[0]
        yield problem(
            f"{found}: the node does not start", f"hydrops-node user add NAME --role admin --config {site.config}"
        )
        return
    if users:
        yield ok(f"{users} may sign in to dashboard and viewer")
    else:
        yield ok("there are no users, and dashboard and viewer show themselves to this machine only")


def count_users(loaded: LoadedSettings) -> int:
    """How many users there are; unlike `open_database` it makes neither a file nor a table."""
    url = make_url(loaded.database_url)
    address = bounded(loaded.database_url)
    if url.get_backend_name() == "sqlite":
        file = Path(url.database or "").absolute()
        if not file.is_file():
            return 0
        address = f"sqlite:///{file.as_uri()}?mode=ro&uri=true"
    engine = create_engine(address, hide_parameters=True)
    try:
        return Users(engine).count() if inspect(engine).has_table(users_table.name) else 0
    finally:
        engine.dispose()
