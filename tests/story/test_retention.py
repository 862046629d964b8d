"""The life of a study on a real node: measured or not, delivered, its images erased at their end, and sent again."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import httpx
import pytest
from dashboard_parts import PASSWORD, sign_in
from desk_parts import hydrops_study
from dicom_receivers import Receiver
from free_ports import free_port
from local_node import LocalNode
from patience import STUDY_S, wait_until
from scanned_series import write_files

from dicom_node.accounts.roles import Role
from dicom_node.accounts.users import Users
from dicom_node.audit import AuditTrail
from dicom_node.database import open_database
from dicom_node.intake.spool import Spool
from dicom_node.ledger import Ledger, StudyState
from dicom_node.retention import Eraser, Periods, RetentionRounds

pytestmark = pytest.mark.dcmtk

STUDY = "2.25.100"
A_DAY_S = 86400.0
PERIODS = Periods(inputs_days=14, results_days=1825, audit_days=2190)


def send(folder: Path, port: int) -> None:
    titles = ["-aet", "SCANNER", "-aec", "HYDROPS"]
    command = ["dcmsend", *titles, "--scan-directories", "127.0.0.1", str(port), str(folder)]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"TCP_NODELAY": "1"}, timeout=STUDY_S)


class StateFolder:
    """The state of a node that runs, as another process of it sees it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.engine = open_database(f"sqlite:///{folder / 'node.db'}")
        self.spool = Spool(folder / "spool", self.engine)
        self.ledger = Ledger(self.engine)
        Users(self.engine).add("vera", Role.VIEWER, PASSWORD, at=time.time())

    def go_on_for(self, days: int) -> None:
        """What the node's own thread does every hour, here twice a day: a clock that jumps ahead is doubted."""
        for half_days in range(1, 2 * days + 1):
            self._round_after(half_days / 2)

    def _round_after(self, days: float) -> None:

        def clock() -> float:
            return time.time() + days * A_DAY_S

        audit = AuditTrail(self.folder / "audit", clock=clock)
        eraser = Eraser(self.engine, self.folder, spool=self.spool, audit=audit, clock=clock)
        rounds = RetentionRounds(
            self.engine, self.folder, eraser=eraser, sweeps=[], audit=audit, periods=PERIODS, clock=clock
        )
        rounds.once()

    def images(self) -> int:
        return len(list(self.folder.glob("spool/??/*")))

    def wait_until_looked_at(self, images: int) -> None:
        """Wait until so many images are here and the node has looked at all of them."""
        wait_until(lambda: self._looked_at() == images)

    def _looked_at(self) -> int:
        activity, record = self.spool.study(STUDY), self.ledger.get(STUDY)
        return activity.instances if activity and record and activity.revision == record.revision else 0


def page(node: LocalNode) -> str:
    """The study's page, as a reader sees it."""
    with httpx.Client(
        base_url=f"http://127.0.0.1:{node.web_port}", headers={"Accept": "text/html"}, timeout=STUDY_S
    ) as client:
        assert sign_in(client, "vera", PASSWORD).status_code == 303
        return client.get(f"/studies/{STUDY}").text


def test_s25_images_end_after_delivery_the_result_stays_and_the_study_can_be_sent_again(tmp_path: Path) -> None:
    images = hydrops_study()
    write_files(images, tmp_path / "sent")
    with Receiver(port=free_port()).listening() as pacs:
        receiver = f'name = "pacs"\nkind = "dicom"\nhost = "127.0.0.1"\nport = {pacs.port}\ncalled_ae = "PACS"'
        settings = {"assembly": "quiet_s = 1.0\npartner_wait_s = 2.0", "[destinations]": receiver}
        with LocalNode(tmp_path / "node", entrance="dicom", overrides=settings) as node:
            send(tmp_path / "sent", node.dicom_port)
            decided = node.wait_until_finished(STUDY)
            assert decided.state is StudyState.REFUSED
            state, arrived = StateFolder(node.state_dir), len(pacs.received)
            assert arrived > 0
            assert "Images are kept here until" in page(node)
            state.go_on_for(15)
            assert state.images() == 0
            shown = page(node)
            assert "Images were erased here on" in shown
            assert "Not measured" in shown
            assert "/objects/" in shown, "the result can still be taken as files"
            send(tmp_path / "sent", node.dicom_port)
            state.wait_until_looked_at(len(images))
            assert "Images are kept here until" in page(node)
            after = state.ledger.get(STUDY)
            assert after is not None
            assert (after.state, after.work_id, after.updated_at) == (
                decided.state,
                decided.work_id,
                decided.updated_at,
            )
            assert len(pacs.received) == arrived, "no second series"
            assert state.images() == len(images)
