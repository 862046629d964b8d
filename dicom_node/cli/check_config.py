"""Check the configuration without starting anything.

  hydrops-node check-config --config config/node.toml

Prints OK, or everything that is wrong: the key, what was expected and what was found. Looks at the site's series
rules, at TLS files and at whether needed secrets are set, too. Not at what only a start can try: whether
ports are free, the state folder may be written, and a dashboard for the network has a user.
Exit status: 0 OK, 2 something is wrong.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dicom_node.settings import LoadedSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `hydrops-node check-config`."""
    parser.add_argument(
        "--config",
        type=Path,
        default=Path("config/node.toml"),
        metavar="PATH",
        help="the file to check (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Collect every problem and print it."""
    import os

    path: Path = arguments.config
    problems = all_problems(path, os.environ)
    for problem in problems:
        print(problem)
    if problems:
        print(f"{path}: {len(problems)} to correct; every key is explained in docs/configuration.md")
        return 2
    print(f"{path}: OK")
    return 0


def all_problems(path: Path, environment: Mapping[str, str]) -> list[str]:
    """What is wrong with the file, or, when it is right, with what it names; empty when the node may start."""
    from dicom_node.settings import find_problems, read_settings

    problems = find_problems(path, environment)
    return problems or list(_beyond_the_file(read_settings(path, environment), environment))


def _beyond_the_file(loaded: LoadedSettings, environment: Mapping[str, str]) -> Iterator[str]:
    """What only shows once the file itself is right: the rules it names, and secrets it makes necessary."""
    from dicom_node.cli.wiring import series_rules
    from dicom_node.errors import ConfigError

    try:
        series_rules(loaded, from_file=True)
    except ConfigError as error:
        yield str(error)
    yield from problems_of_named_files(loaded, environment)


def problems_of_named_files(loaded: LoadedSettings, environment: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with files and secrets that the settings make necessary, the rules apart."""
    from dicom_node.settings import password_variable

    yield from _tls_problems(loaded)
    yield from _exposure_problems(loaded)
    settings = loaded.settings
    if settings.orthanc.username and not environment.get("HYDROPS_ORTHANC_PASSWORD"):
        yield "orthanc.username: is set, but HYDROPS_ORTHANC_PASSWORD is not; set it in the environment"
    for one in settings.destinations:
        if one.username and not loaded.destination_password(one.name):
            yield f"destinations: {one.name!r} has a username but no password; set {password_variable(one.name)}"


def _exposure_problems(loaded: LoadedSettings) -> Iterator[str]:
    """A dashboard or viewer that would be shown without TLS. Whether there are users only the running node sees."""
    from dicom_node.cli.exposure import check_exposure
    from dicom_node.errors import ConfigError

    try:
        check_exposure(loaded, users=1)
    except ConfigError as error:
        yield str(error)


def _tls_problems(loaded: LoadedSettings) -> Iterator[str]:
    """TLS files that are missing, no PEM, or do not belong together."""
    from dicom_node.cli.tls_files import listener_tls, sender_tls, web_tls_problems
    from dicom_node.cli.wiring import audit_forwarder
    from dicom_node.errors import ConfigError

    yield from web_tls_problems(loaded)
    for made_at_the_start in (listener_tls, audit_forwarder):
        try:
            made_at_the_start(loaded)
        except ConfigError as error:
            yield str(error)
    for one in loaded.settings.destinations:
        tls = sender_tls(loaded, one)
        try:
            if tls is not None:
                tls.context()
        except ConfigError as error:
            yield f"destinations: {one.name!r}: {error}"
