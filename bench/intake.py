"""Images received per second: this node, Orthanc, and pynetdicom as its examples show it, in one run.

    python bench/intake.py [--images 200] [--rounds 3] [--json FILE]

Every receiver gets the same images from the same sender (DCMTK's storescu with TCP_NODELAY, one process for each
association), in turns A B C A B C, because a shared machine changes its mind from minute to minute: read the ratios.
This node and Orthanc flush every image to disk before they answer; the naive receiver does not.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

ROWS, COLUMNS = 384, 324  # 16 bit: 249 KB, one slice of a hydrops protocol
ASSOCIATIONS = (1, 4)
RECEIVERS = ("node", "orthanc", "naive")


def make_images(folder: Path, count: int) -> None:
    """`count` MR images of one new series, in one subfolder for each of 4 senders."""
    study, series = generate_uid(), generate_uid()
    noise = os.urandom(ROWS * COLUMNS * 2)
    for n in range(count):
        image = Dataset()
        image.SOPClassUID, image.SOPInstanceUID = MRImageStorage, generate_uid()
        image.StudyInstanceUID, image.SeriesInstanceUID = study, series
        image.PatientID, image.PatientName, image.Modality = "BENCH", "BENCH", "MR"
        image.InstanceNumber = n + 1
        image.Rows, image.Columns, image.SamplesPerPixel = ROWS, COLUMNS, 1
        image.PhotometricInterpretation = "MONOCHROME2"
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 0
        image.PixelData = noise[n:] + noise[:n]
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        part = folder / str(n % max(ASSOCIATIONS))
        part.mkdir(parents=True, exist_ok=True)
        pydicom.dcmwrite(part / f"{n}.dcm", image, enforce_file_format=True)


def send(folder: Path, *, port: int, called: str, associations: int) -> float:
    """Seconds until every image under `folder` was answered with success."""
    parts = sorted(folder.iterdir())
    shares = [parts[n::associations] for n in range(associations)]
    started_s = time.perf_counter()
    senders = [
        subprocess.Popen(
            ["storescu", "-R", "-aet", "SCANNER", "-aec", called, "+sd", "127.0.0.1", str(port), *map(str, share)],
            env={**os.environ, "TCP_NODELAY": "1"},
            stdout=subprocess.DEVNULL,
        )
        for share in shares
    ]
    if any(sender.wait() for sender in senders):
        raise RuntimeError(f"storescu failed against {called}")
    return time.perf_counter() - started_s


@contextmanager
def python_receiver(name: str, folder: Path) -> Iterator[int]:
    """A receiver as a process of its own; its port."""
    process = subprocess.Popen(
        [sys.executable, __file__, "--serve", name, "--folder", str(folder)], stdout=subprocess.PIPE, text=True
    )
    if process.stdout is None:
        raise RuntimeError("no pipe")
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@contextmanager
def orthanc_receiver(folder: Path) -> Iterator[int]:
    """Orthanc with the settings we ship and its own flushing switched on; its DICOM port."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "demo"))
    from local_orthanc import LocalOrthanc

    with LocalOrthanc(folder, aet="ORTHANC", extra={"SyncStorageArea": True}) as orthanc:
        yield orthanc.dicom_port


def serve_node(folder: Path) -> None:
    """This node's listener and spool."""
    from dicom_node.database import open_database
    from dicom_node.intake.listener import AllowedPeer, Listener, ListenerOptions
    from dicom_node.intake.spool import Spool

    spool = Spool(folder / "spool", open_database(f"sqlite:///{folder / 'node.db'}"))
    scanner = AllowedPeer(ae_title="SCANNER", networks=("127.0.0.1/32",))
    listener = Listener(ListenerOptions(ae_title="NODE", port=0, allowed=(scanner,)), spool)
    listener.start()
    print(listener.port, flush=True)


def serve_naive(folder: Path) -> None:
    """What a first program with pynetdicom does: decode, write, say success."""
    from pynetdicom import AE, evt

    def on_store(event: evt.Event) -> int:
        image = event.dataset
        image.file_meta = event.file_meta
        image.save_as(folder / f"{image.SOPInstanceUID}.dcm", enforce_file_format=True)
        return 0x0000

    entity = AE("NAIVE")
    entity.add_supported_context(MRImageStorage)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, on_store)])
    print(server.server_address[1], flush=True)


def serve(name: str, folder: Path) -> None:
    """Be a receiver until killed."""
    chosen: dict[str, Callable[[Path], None]] = {"node": serve_node, "naive": serve_naive}
    chosen[name](folder)
    while True:
        time.sleep(60)


def measure(*, images: int, rounds: int, folder: Path) -> dict[str, dict[int, list[float]]]:
    """Images per second of every receiver, for each number of associations, one value a round."""
    rates: dict[str, dict[int, list[float]]] = {name: {n: [] for n in ASSOCIATIONS} for name in RECEIVERS}
    with ExitStack() as stack:
        ports: dict[str, int] = {}
        for name in RECEIVERS:
            home = folder / name
            home.mkdir()
            receiver = orthanc_receiver(home) if name == "orthanc" else python_receiver(name, home)
            ports[name] = stack.enter_context(receiver)
        for _ in range(rounds):
            for associations in ASSOCIATIONS:
                batch = folder / "images"
                make_images(batch, images)
                for name in RECEIVERS:
                    spent_s = send(batch, port=ports[name], called=name.upper(), associations=associations)
                    rates[name][associations].append(images / spent_s)
                shutil.rmtree(batch)
    return rates


def print_table(rates: dict[str, dict[int, list[float]]]) -> None:
    """Median and range, and the median of the ratios to this node's neighbors in the same turn."""
    print(f"{'receiver':10} {'assoc.':>6} {'images/s':>9} {'range':>13} {'node / it':>10}")
    for name in RECEIVERS:
        for associations in ASSOCIATIONS:
            values, node = rates[name][associations], rates["node"][associations]
            ratio = statistics.median(ours / theirs for ours, theirs in zip(node, values, strict=True))
            spread = f"{min(values):.0f}-{max(values):.0f}"
            print(f"{name:10} {associations:6} {statistics.median(values):9.0f} {spread:>13} {ratio:10.2f}")


def main() -> None:
    """Measure, print, and write JSON when asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200, help="images in one measurement (default 200)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of every receiver (default 3)")
    parser.add_argument("--json", type=Path, help="also write all values here")
    parser.add_argument("--serve", choices=("node", "naive"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, arguments.folder)
    with tempfile.TemporaryDirectory(prefix="bench-intake-") as folder:
        rates = measure(images=arguments.images, rounds=arguments.rounds, folder=Path(folder))
    print_table(rates)
    if arguments.json:
        machine = {"machine": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
        content = {**machine, "images": arguments.images, "images_per_s": rates}
        arguments.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
