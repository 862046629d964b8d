"""Show what is kept how long, what goes next, and what is held and why. Changes nothing.

hydrops-node retention                disk use, and the studies whose images are here, the oldest first
hydrops-node retention --study UID    one study: what is here of it, until when, and what holds it
hydrops-node retention --json         the same for programs

The node erases by itself, every hour, by the settings under [retention]; `hydrops-node erase` does so at once.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dicom_node.retention import Inventory, Periods, StudyInventory
    from dicom_node.settings import LoadedSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `retention`."""
    parser.add_argument("--study", metavar="UID", help="only this Study Instance UID")
    parser.add_argument("--config", default="config/node.toml", metavar="NODE_TOML", help="default: %(default)s")
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="how many studies (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print what is kept."""
    from dicom_node.cli.retaining import periods_of
    from dicom_node.cli.wiring import load_settings
    from dicom_node.errors import UnusableInput

    loaded = load_settings(Path(arguments.config))
    inventory = inventory_of(loaded)
    if arguments.study is not None:
        one = inventory.of_study(arguments.study)
        if one is None:
            raise UnusableInput(f"study {arguments.study}: unknown here; `hydrops-node status` lists what is known")
        found = [one]
    else:
        found = inventory.with_images(arguments.limit)
    if arguments.json:
        print(json.dumps({"studies": [asdict(one) for one in found]}, indent=2))
        return 0
    lines = [] if arguments.study else [*_disk(loaded), *_periods(periods_of(loaded.settings.retention))]
    print("\n".join([*lines, *_studies(found)]))
    return 0


def inventory_of(loaded: LoadedSettings) -> Inventory:
    """What looks at this node's studies.

    Raises
    ------
    UnusableInput
        If the node never ran with this configuration.
    """
    from dicom_node.cli.receiving import open_spool
    from dicom_node.cli.retaining import periods_of
    from dicom_node.database import open_database
    from dicom_node.errors import UnusableInput
    from dicom_node.retention import Inventory

    if not loaded.state_dir.is_dir():
        raise UnusableInput(f"{loaded.state_dir}: no state here yet; has the node run with this configuration?")
    engine = open_database(loaded.database_url)
    return Inventory(
        engine, loaded.state_dir, spool=open_spool(loaded, engine), periods=periods_of(loaded.settings.retention)
    )


def size(count: int) -> str:
    """Bytes as people write them: 3.2 GB."""
    amount = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def day(at: float | None) -> str:
    """The local day of a time (POSIX seconds), or what it means that there is none."""
    return "no end" if at is None else datetime.fromtimestamp(at).astimezone().date().isoformat()


def _disk(loaded: LoadedSettings) -> list[str]:
    from dicom_node.retention.disk_use import disk_use

    parts = [f"  {part.ljust(10)} {size(count)}" for part, count in disk_use(loaded.state_dir).items()]
    free = shutil.disk_usage(loaded.state_dir).free
    return [f"disk of {loaded.state_dir}", *parts, f"  {'free'.ljust(10)} {size(free)}", ""]


def _periods(periods: Periods) -> list[str]:
    kept = {
        "images": periods.inputs_days,
        "results and the rest of a study": periods.results_days,
        "audit trail": periods.audit_days,
    }
    return [
        "kept after a study is done",
        *(f"  {what}: {f'{days} days' if days else 'for good'}" for what, days in kept.items()),
        "",
    ]


def _studies(found: Sequence[StudyInventory]) -> list[str]:
    if not found:
        return ["no images of any study are here"]
    lines = ["studies"]
    for one in found:
        keeping = one.keeping
        lines.append(f"  {keeping.study_instance_uid}  {keeping.state}")
        lines.append(f"    here: {_here(one)}")
        if keeping.erased is not None and keeping.erased.missing:
            lines.append(f"    erased on {day(keeping.erased.erased_at)}: {keeping.erased.missing} images")
        lines.append(f"    {_end(one)}")
    return lines


def _here(one: StudyInventory) -> str:
    images = f"{one.keeping.images} images ({size(one.image_bytes)})" if one.keeping.images else "no images"
    return f"{images}, {one.results} results and {one.pictures} sets of pictures ({size(one.result_bytes)})"


def _end(one: StudyInventory) -> str:
    keeping = one.keeping
    if keeping.held_because:
        return f"held: {keeping.held_because}"
    images = f"images until {day(keeping.images_until)}, " if keeping.images else ""
    over = " (goes with the next round)" if (keeping.images_until or time.time()) < time.time() else ""
    return f"{images}results until {day(keeping.results_until)}{over}"
