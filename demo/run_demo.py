"""The main job on real parts: a hydrops study goes to a PACS, and a segmentation and a report come back to it.

    make demo                       scanner -> Orthanc -> node (woken by the Lua hook, reads over REST) -> Orthanc
    make demo ENTRANCE=dicom        the same, but Orthanc forwards the study to the node by C-STORE
    make demo KEEP=1                leave PACS and node running until Ctrl-C, to look around

Everything runs on this machine, on free loopback ports, and is stopped at the end. The patient is synthetic.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import pydicom
from free_ports import free_port
from local_node import LocalNode
from local_orthanc import LocalOrthanc, OrthancMissing
from pictures import draw_overview, draw_ratios, show_summary
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from dicom_node.ledger import StudyRecord, StudyState
from dicom_node.web.viewer.installation import is_installed, viewer_folder

REPOSITORY: Final = Path(__file__).resolve().parent.parent
HOOK: Final = REPOSITORY / "orthanc_plugin" / "route_to_node.lua"
CACHE: Final = REPOSITORY / ".cache" / "demo"
MARKER: Final = ".hydrops-demo"
SEED: Final = 7
RATIOS: Final = {"right": 0.12, "left": 0.38}
"""The true EH ratios of the synthetic patient: an ordinary right ear, a hydropic left one."""


console = Console(highlight=False, soft_wrap=True, width=max(100, shutil.get_terminal_size().columns))


MODALITIES: Final = {"SEG": "SEG", "SR": "SR", "SC": "OT"}
"""Modality (0008,0060) of each kind of result: how they are told from the MR images in the PACS."""


def main() -> int:
    """Run the demo; 0 when SEG, SR and summary came back, 1 when they did not, 2 when a program is missing."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that Orthanc and the node are stopped then, too
    out: Path = arguments.out.resolve()
    make_empty(out)
    console.print("[bold]Hydrops Node demo[/bold]  research use only, synthetic patient")
    began = time.monotonic()
    try:
        with ExitStack() as stack:
            return _run(arguments, out, stack, began)
    except OrthancMissing as missing:
        console.print(f"[red]{missing}[/red]\nThen run `make demo` again.")
        return 2


def _run(arguments: argparse.Namespace, out: Path, stack: ExitStack, began: float) -> int:
    truth = make_patient(out / "study")
    ports = {"dicom_port": free_port(), "web_port": free_port()}
    orthanc = make_pacs(out / "orthanc", arguments.entrance, **ports)
    node = LocalNode(out / "node", orthanc=orthanc, entrance=arguments.entrance, **ports)
    with _step("starting a real Orthanc as the PACS"):
        stack.enter_context(orthanc)
    with _step("starting the node"):
        stack.enter_context(node)
    sent = send_study(out / "study" / "dicom", orthanc)
    if arguments.entrance == "dicom":
        forward_to_node(orthanc)
    record = wait_for_result(node, truth["study_instance_uid"])
    results = fetch_results(orthanc, truth["study_instance_uid"], out)
    if record.state is not StudyState.COMPUTED or set(results) != set(MODALITIES):
        console.print(f"[red]No result: {record.state} {record.reason} {record.detail}[/red] Log: {node.log_path}")
        return 1
    pictures = [
        draw_overview(out / "study" / "dicom", results["SEG"], record.findings or {}, out / "overview.png"),
        draw_ratios(record.findings or {}, truth, out / "ratios.png"),
        show_summary(results["SC"], out / "summary.png"),
    ]
    tell(record, truth, sent, results, pictures, time.monotonic() - began)
    if arguments.keep:
        keep_running(orthanc, node, record.study_instance_uid)
    else:
        console.print("make demo KEEP=1 leaves PACS and node running and says where OHIF shows the study")
    return 0


def make_empty(folder: Path) -> None:
    """An empty folder for this run; only what an earlier demo wrote is removed."""
    marker = folder / MARKER
    if folder.exists() and any(folder.iterdir()) and not marker.exists():
        raise SystemExit(f"{folder} holds files that no demo wrote; choose another --out")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    marker.touch()


def make_patient(folder: Path) -> dict[str, Any]:
    """The synthetic study as DICOM files, and its truth; kept in .cache/ for the next run."""
    options = ["--seed", str(SEED), "--ratio-right", str(RATIOS["right"]), "--ratio-left", str(RATIOS["left"])]
    options += ["--oblique", "12", "--motion", "1.5", "--series", "MRC", "PPI", "PEI", "HYDROPS_MI2"]
    kept = CACHE / f"study-{_phantom_digest(options)}"
    if not kept.exists():
        shutil.rmtree(CACHE, ignore_errors=True)
        unfinished = CACHE / "unfinished"
        command = [sys.executable, "-m", "dicom_node.cli", "phantom", "--out", str(unfinished), *options]
        with _step("making a synthetic patient: 4 series of 104 slices, oblique, with motion between the series"):
            subprocess.run(command, check=True, capture_output=True)
        unfinished.rename(kept)
    shutil.copytree(kept, folder)
    truth: dict[str, Any] = json.loads((folder / "truth.json").read_text())
    first = next((folder / "dicom").rglob("*.dcm"))
    truth["study_instance_uid"] = str(pydicom.dcmread(first, specific_tags=["StudyInstanceUID"]).StudyInstanceUID)
    return truth


def make_pacs(folder: Path, entrance: str, *, dicom_port: int, web_port: int) -> LocalOrthanc:
    """A real Orthanc that knows the node, with the wake-up hook installed the way a site installs it."""
    extra = {
        "HydropsNode": {"WakeUrl": f"http://127.0.0.1:{web_port}/wake/orthanc"},
        "StableAge": 2,
        "DicomModalities": {"hydrops": ["HYDROPS", "127.0.0.1", dicom_port]},
    }
    hooks = [HOOK] if entrance == "orthanc" else []
    return LocalOrthanc(folder, extra=extra, lua_scripts=hooks, plugins=["OrthancDicomWeb"])


def _phantom_digest(options: list[str]) -> str:
    """Changes when the options or the phantom's code do, so that no stale patient is shown."""
    sources = sorted((REPOSITORY / "inference" / "phantom").glob("*.py"))
    sources += sorted((REPOSITORY / "dicom_node" / "encoding").glob("phantom_*.py"))
    content = b"".join(path.read_bytes() for path in sources)
    return hashlib.sha256(" ".join(options).encode() + content).hexdigest()[:16]


def send_study(folder: Path, orthanc: LocalOrthanc) -> int:
    """Send the study to the PACS as a scanner would, with DCMTK's dcmsend; the number of images."""
    files = sum(1 for path in folder.rglob("*.dcm"))
    command = ["dcmsend", "-aet", "SCANNER", "-aec", orthanc.aet, "--scan-directories", "--recurse"]
    command += ["127.0.0.1", str(orthanc.dicom_port), str(folder)]
    with _step(f"sending {files} images to the PACS with dcmsend"):
        subprocess.run(command, check=True, capture_output=True, env=os.environ | {"TCP_NODELAY": "1"})
    return files


def forward_to_node(orthanc: LocalOrthanc) -> None:
    """Auto-routing by C-STORE, as a PACS without our hook does it."""
    with _step("the PACS forwards the study to the node by C-STORE"):
        studies = orthanc.session.get(f"{orthanc.url}/studies").json()
        answer = orthanc.session.post(
            f"{orthanc.url}/modalities/hydrops/store", json={"Resources": studies}, timeout=60
        )
        answer.raise_for_status()


def wait_for_result(node: LocalNode, study: str) -> StudyRecord:
    """Follow the study through the node, step by step, until its results are delivered."""
    columns = (SpinnerColumn(), TextColumn("the node: {task.description}"), TimeElapsedColumn())
    began = time.monotonic()
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("waiting for images")
        record = node.wait_until_finished(study, on_change=lambda text: progress.update(task, description=text))
    console.print(f"  the node received, computed, checked and delivered ({time.monotonic() - began:.1f} s)")
    return record


def fetch_results(orthanc: LocalOrthanc, study: str, out: Path) -> dict[str, Path]:
    """What the PACS now holds besides the MR images, by kind, as files in `out`."""
    found: dict[str, Path] = {}
    for kind, modality in MODALITIES.items():
        query = {"Level": "Instance", "Query": {"StudyInstanceUID": study, "Modality": modality}}
        for instance in orthanc.session.post(f"{orthanc.url}/tools/find", json=query).json():
            path = out / f"{kind.lower()}.dcm"
            path.write_bytes(orthanc.session.get(f"{orthanc.url}/instances/{instance}/file").content)
            found[kind] = path
    return found


def tell(
    record: StudyRecord,
    truth: Mapping[str, Any],
    sent: int,
    results: Mapping[str, Path],
    pictures: list[Path],
    seconds: float,
) -> None:
    """What happened, in plain words."""
    findings = record.findings or {}
    console.print(f"\n[bold]What came in[/bold]: {sent} images of study {record.study_instance_uid}")
    for one in record.decisions:
        used = "used" if one["used"] else f"left out: {one['left_out_because']}"
        console.print(f"  taken as [bold]{one['role']}[/bold] because {one['reason']} ({used})")
    console.print(_numbers(findings, truth))
    took = ", ".join(f"{name} {value:.1f} s" for name, value in findings.get("timings_s", {}).items())
    console.print(f"Steps: {took}")
    console.print("\n[bold]Where to look[/bold]")
    for name, path in (*results.items(), *((path.stem, path) for path in pictures)):
        console.print(f"  {name:9} {os.path.relpath(path)}")
    console.print(
        "  look at summary.png first; `dsrdump +Pl` prints the SR; a viewer for DICOM SEG lays it over the MRC"
    )
    console.print(f"\nThe whole demo took {seconds:.0f} s. Research use only. Not for diagnostic use.")


def _numbers(findings: Mapping[str, Any], truth: Mapping[str, Any]) -> Table:
    table = Table(title="\nMeasured, and the known truth of the synthetic patient", title_justify="left")
    for heading in ("ear", "fluid, mm3", "truth", "endolymph", "truth", "EH ratio", "95 % interval", "truth"):
        table.add_column(heading, justify="right", no_wrap=True)
    for side in ("right", "left"):
        ear, known = findings["ears"][side], truth["ears"][side]
        ratio = ear["eh_ratio"]
        if ratio["value"] is None:
            table.add_row(side, "not evaluated")
            continue
        table.add_row(
            side,
            f"{ear['total_fluid_mm3']:.0f}",
            f"{known['total_fluid_mm3']:.0f}",
            f"{ear['endolymph_mm3']:.0f}",
            f"{known['endolymph_mm3']:.0f}",
            f"{100 * ratio['value']:.1f} %",
            f"{100 * ratio['low']:.0f} to {100 * ratio['high']:.0f} %",
            f"{100 * known['eh_ratio']:.1f} %",
        )
    return table


def keep_running(orthanc: LocalOrthanc, node: LocalNode, study: str) -> None:
    """Leave everything up until Ctrl-C."""
    if is_installed(viewer_folder()):
        console.print(f"\nOpen the study in OHIF: {node.viewer_url(study)}")
    else:
        console.print("\nNo viewer: `hydrops-node install-viewer` fetches OHIF; then run the demo again.")
    console.print(f"\nPACS:  {orthanc.url}  user {orthanc.username}  password {orthanc.password}")
    console.print(f"       DICOM {orthanc.aet}@127.0.0.1:{orthanc.dicom_port}, DICOMweb {orthanc.dicom_web_url}")
    console.print(f"Node:  {node.health_url}  DICOM HYDROPS@127.0.0.1:{node.dicom_port}")
    console.print(f"       dashboard http://127.0.0.1:{node.web_port}; its first user (then sign in for OHIF, too):")
    console.print(f"       .venv/bin/hydrops-node user add ada --role admin --config {os.path.relpath(node.config)}")
    console.print("Ctrl-C stops both.")
    try:
        signal.pause()
    except KeyboardInterrupt:
        console.print("stopping")


@contextmanager
def _step(text: str) -> Iterator[None]:
    began = time.monotonic()
    with console.status(text):
        yield
    console.print(f"  {text} ({time.monotonic() - began:.1f} s)")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entrance", choices=("orthanc", "dicom"), default="orthanc", help="default: %(default)s")
    parser.add_argument(
        "--out", type=Path, default=REPOSITORY / "demo-output", help="emptied first; default: %(default)s"
    )
    parser.add_argument("--keep", action="store_true", help="leave PACS and node running until Ctrl-C")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
