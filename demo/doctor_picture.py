"""A picture of what `hydrops-node doctor` says, for docs/doctor.md.

    python demo/doctor_picture.py [--out docs/pictures]

Doctor examines a configuration beside two real peers: an Orthanc whose doors are too wide open, and a receiver that
does not know this node's AE title. Needs Orthanc and Chromium, and half a minute.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from dashboard_pictures import PICTURES, chromium
from free_ports import free_port
from local_orthanc import LocalOrthanc
from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI

from dicom_node.cli import main as hydrops_node
from dicom_node.cli.doctor.checkup import Level, Line
from dicom_node.cli.doctor.report import Report

CHECKS: Final = ("configuration", "ports", "callers", "receivers", "tls", "names", "disk", "model", "orthanc", "forms")
COLUMNS: Final = 112
RULES: Final = Path(__file__).resolve().parent.parent / "config" / "series_rules.toml"

OPEN_DOORS: Final = {
    "ExecuteLuaEnabled": True,
    "DicomAlwaysAllowEcho": True,
    "DicomAlwaysAllowStore": True,
    "DicomCheckModalityHost": False,
}


def main() -> int:
    """Make the picture; prints where it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=PICTURES, help="where the picture goes (default: docs/pictures)")
    arguments = parser.parse_args()
    path = arguments.out / "doctor.png"
    with (
        LocalOrthanc(plugins=("OrthancDicomWeb",), extra=OPEN_DOORS) as orthanc,
        LocalOrthanc(aet="PACS", callers=("SOMEBODY",)) as pacs,
        tempfile.TemporaryDirectory(prefix="hydrops-") as folder,
    ):
        os.environ["HYDROPS_ORTHANC_PASSWORD"] = orthanc.password
        findings = examine(write_configuration(Path(folder), orthanc, pacs))
    photograph(drawn(findings), path)
    print(path)
    return 0


def write_configuration(folder: Path, orthanc: LocalOrthanc, pacs: LocalOrthanc) -> Path:
    """A site with one scanner that can never reach it, an Orthanc, and a PACS that does not know it."""
    path = folder / "node.toml"
    (folder / RULES.name).write_bytes(RULES.read_bytes())
    path.write_text(
        f'[node]\nstate_dir = "state"\n[listener]\nport = {free_port()}\n'
        'allowed = [{ ae_title = "MR_SKYRA", networks = ["10.1.2.0/24"] }]\n'
        f"[web]\nport = {free_port()}\n[viewer]\nport = {free_port()}\n"
        f'[orthanc]\nurl = "{orthanc.url}"\nusername = "{orthanc.username}"\n'
        f'[[destinations]]\nname = "pacs"\nkind = "dicom"\nhost = "127.0.0.1"\nport = {pacs.dicom_port}\n'
        'called_ae = "PACS"\ntimeout_s = 5.0\n',
        encoding="utf-8",
    )
    return path


def examine(config: Path) -> list[dict[str, Any]]:
    """What doctor finds, without the temporary folder's name."""
    output = io.StringIO()
    only = [word for name in CHECKS for word in ("--only", name)]
    with contextlib.redirect_stdout(output):
        hydrops_node(["doctor", "--config", str(config), "--json", *only])
    text = output.getvalue().replace(str(config.parent), "/etc/hydrops")
    findings: list[dict[str, Any]] = json.loads(text)["findings"]
    return findings


def drawn(findings: list[dict[str, Any]]) -> str:
    """The same lines as on a terminal, as SVG."""
    console = Console(record=True, width=COLUMNS, force_terminal=True, highlight=False, file=io.StringIO())
    report = Report(as_json=False, console=console)
    for name in dict.fromkeys(one["check"] for one in findings):
        lines = [one for one in findings if one["check"] == name]
        report.add(
            name,
            [Line(level=Level(one["level"]), text=one["text"], next_step=one["next_step"]) for one in lines],
        )
    report.close()
    return console.export_svg(title="hydrops-node doctor", theme=DIMMED_MONOKAI)


def photograph(svg: str, path: Path) -> None:
    """The SVG as a PNG; viewers of the docs may not show SVG with its fonts."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium())
        page = browser.new_page(viewport={"width": 1100, "height": 900})
        page.set_content(f"<body style='margin:0; width: 1100px'>{svg}</body>")
        page.locator("svg").first.screenshot(path=str(path))
        browser.close()


if __name__ == "__main__":
    sys.exit(main())
