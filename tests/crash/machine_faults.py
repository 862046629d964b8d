"""Faults of whole machines: two of them, one PostgreSQL, one shared storage; one loses its power or its network.

Both run `hydrops-node serve`: receive, compute and deliver. The ledgers are the sender's and the PACS's own.
"""

from __future__ import annotations

import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dicom_receivers import Receiver
from exact_sender import associated
from fault import Fault, NotHere, Observation, Scale, Trial
from free_ports import free_port
from local_postgresql import programs, running_postgresql
from machines import Machine, missing, network
from mr_images import encode
from phantom_patients import images_of
from small_studies import SMALL_EARS
from sqlalchemy import Engine
from tripwire import LINGER_S, armed_environment

from dicom_node.database import open_database
from dicom_node.duties import duties
from dicom_node.ledger import Ledger, StudyEvent, StudyState
from dicom_node.roster import Roster
from inference.phantom import make_study

TAKEN_OVER_WITHIN_S: Final = 60.0
PATIENCE_S: Final = 240.0
DICOM_PORT: Final = 11112
RULES: Final = Path(__file__).resolve().parents[2] / "config" / "series_rules.toml"

CONFIGURATION: Final = """
node.state_dir = "{state}"
node.worker_id = "{name}"
listener.host = "{address}"
listener.port = {port}
listener.min_free_bytes = 500000000
viewer.enabled = false
processing.model = "threshold"
processing.threads = 1
results.summary = false
[[listener.allowed]]
ae_title = "SCANNER"
networks = ["{gateway}/32"]
[[destinations]]
name = "pacs"
kind = "dicom"
host = "{gateway}"
port = {pacs_port}
called_ae = "PACS"
"""


@dataclass(frozen=True, kw_only=True)
class Site:
    """The site: a first machine whose worker will linger over a study, a second one, their database, the PACS."""

    first: Machine
    second: Machine
    gateway: str
    engine: Engine
    database: str
    receiver: Receiver
    logs: Path

    def log(self, machine: Machine) -> str:
        """What a node logged."""
        return (self.logs / f"{machine.name}.log").read_text(errors="replace")


@contextmanager
def _site(trial: Trial) -> Iterator[Site]:
    """The machines, the database and the PACS; no node yet."""
    with ExitStack() as stack:
        net = stack.enter_context(network(2))
        first, second = net.machines
        database = stack.enter_context(running_postgresql(net.gateway))
        receiver = Receiver(port=free_port())
        stack.enter_context(receiver.listening(host=net.gateway))
        engine = open_database(database)
        stack.callback(engine.dispose)
        yield Site(
            first=first,
            second=second,
            gateway=net.gateway,
            engine=engine,
            database=database,
            receiver=receiver,
            logs=trial.folder,
        )


def _start_node(trial: Trial, site: Site, machine: Machine, harm: str = "") -> None:
    """`hydrops-node serve` on a machine, on the shared storage; returns once it listens."""
    folder = trial.folder / machine.name
    folder.mkdir()
    shutil.copy(RULES, folder)
    config = folder / "node.toml"
    config.write_text(
        CONFIGURATION.format(
            state=trial.folder / "state",
            name=machine.name,
            address=machine.address,
            port=DICOM_PORT,
            gateway=site.gateway,
            pacs_port=site.receiver.port,
        )
    )
    environment = {"HYDROPS_DATABASE_URL": site.database, "OMP_NUM_THREADS": "1"}
    environment |= armed_environment(folder / "harm", "infer", harm) if harm else {}
    command = (sys.executable, "-m", "dicom_node.cli", "serve", "--config", str(config))
    with (trial.folder / f"{machine.name}.log").open("wb") as log:
        machine.run(command, environment=environment, log=log)
    if not _wait(lambda: _listens(machine.address)):
        raise RuntimeError(f"the node did not start: {site.log(machine)[-1000:]}")


def machine_gone(trial: Trial) -> Observation:
    """The machine that has a study under way loses its power (even seeds) or its network for a while (odd ones)."""
    cut = trial.seed % 2 == 1
    images = images_of(make_study(SMALL_EARS), "MRC", "PPI", "PEI")
    study = str(images[0].StudyInstanceUID)
    with _site(trial) as site:
        ledger = Ledger(site.engine)
        _start_node(trial, site, site.first, "linger")
        with associated(DICOM_PORT, address=site.first.address) as sender:
            acknowledged = sum(sender.store(encode(one), sop_instance=one.SOPInstanceUID)[0] == 0 for one in images)
        if not _wait(lambda: _is_at(site, site.first, study)):
            return Observation(problems=(f"the first machine never had the study: {site.log(site.first)[-600:]}",))
        _start_node(trial, site, site.second)
        if not _wait(lambda: site.second.name in [one.worker_id for one in Roster(site.engine).workers()]):
            return Observation(problems=(f"the second worker never came on duty: {site.log(site.second)[-600:]}",))
        began = time.monotonic()
        (site.first.cut_off if cut else site.first.lose_power)()
        taken = _wait(lambda: StudyEvent.TAKEN_OVER in [line.event for line in ledger.history(study)])
        taken_after_s = time.monotonic() - began
        finished = _wait(lambda: (one := ledger.get(study)) is not None and one.state is StudyState.COMPUTED)
        arrived = _wait(lambda: len({uid for uid, _, _ in site.receiver.received}) >= 2)
        problems = [] if taken and finished and arrived else [f"not taken over: {site.log(site.second)[-600:]}"]
        if taken_after_s > TAKEN_OVER_WITHIN_S:
            problems.append(f"taken over after {taken_after_s:.0f} s")
        if cut:
            site.first.mend()
            if not _wait(lambda: "event=work_came_too_late" in site.log(site.first)):
                problems.append(f"the worker that was cut off did not say that it came too late within {LINGER_S} s")
        versions = {(uid, data) for uid, _, data in site.receiver.received}
    return Observation(
        acknowledged=acknowledged,
        lost=len(images) - acknowledged,
        doubled=len(versions) - 2 if arrived else 0,
        recovery_s=taken_after_s,
        problems=tuple(problems),
    )


def _is_at(site: Site, machine: Machine, study: str) -> bool:
    """Whether the worker of a machine is at the study's fluid."""
    at = [(one.worker.worker_id, one.study_instance_uid, one.step) for one in duties(site.engine)]
    return (machine.name, study, "segment fluid") in at


def _listens(address: str) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((address, DICOM_PORT)) == 0


def _wait(condition: Callable[[], object]) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _needs_machines() -> None:
    if lacking := missing() or ("" if programs() else "needs PostgreSQL"):
        raise NotHere(lacking)


FAULTS: Final = (
    Fault(
        number="F27 machine",
        title="of two machines on one PostgreSQL, the one with a study under way loses its power or its network",
        promise="the other one takes its study over within 60 s; one result, also when the first one comes back",
        trials={Scale.CI: 0, Scale.NIGHTLY: 20, Scale.RELEASE: 200},
        run=machine_gone,
        requires=_needs_machines,
    ),
)
