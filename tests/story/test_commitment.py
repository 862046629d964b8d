"""A whole node and a real Orthanc that has to commit: the worker asks, Orthanc calls back, the listener takes it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from committing_node import STUDY, result
from free_ports import free_port
from local_node import LocalNode
from local_orthanc import LocalOrthanc
from patience import wait_until
from queued_results import put

from dicom_node.database import open_database
from dicom_node.delivery.completion import done_at
from dicom_node.delivery.outbox import DeliveryStanding

pytestmark = [pytest.mark.orthanc]


def test_p19_results_of_a_node_are_done_when_orthanc_has_committed_to_them(tmp_path: Path) -> None:
    home = free_port()
    us = {"AET": "HYDROPS", "Host": "127.0.0.1", "Port": home}
    with LocalOrthanc(aet="PACS", extra={"DicomModalities": {"hydrops": us}}) as orthanc:
        pacs = (
            f'name = "pacs"\nkind = "dicom"\nhost = "127.0.0.1"\nport = {orthanc.dicom_port}\n'
            'called_ae = "PACS"\ndone = "committed"'
        )
        overrides = {"[destinations]": pacs, "processing": 'model = "threshold"'}
        with LocalNode(tmp_path, callers=("PACS",), dicom_port=home, overrides=overrides) as node:
            outbox = node.outbox
            put(outbox, "key", STUDY, [result("SEG"), result("SR")], ["pacs"], at=time.time())
            committed = [DeliveryStanding.COMMITTED] * 2
            wait_until(lambda: [one.standing for one in outbox.deliveries(STUDY)] == committed)
            assert done_at(open_database(f"sqlite:///{node.state_dir / 'node.db'}"), STUDY) is not None
            # Who asked and who is answered write their lines after the answer is known, and need not be one process.
            lines = ("event=commitment_asked destination=pacs", "event=commitment_report destination=pacs")
            wait_until(lambda: [one for one in lines if one not in node.log_path.read_text()] == [])
            log = node.log_path.read_text()
    assert [log.count(one) for one in lines] == [1, 1]
    assert "committed=2 failed=0" in log
