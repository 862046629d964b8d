"""What the spool's sweep found when it made disk and index agree again."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from dicom_node.intake.spool_index import SpooledInstance

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SweepReport:
    """What the start-up sweep found and put right.

    `reindexed`: SOP Instance UIDs of files whose row was missing. `missing`: rows whose file was gone; they were
    taken out, so that the study is no longer complete. `damaged`: files set aside because their content is not what
    their name says. `erased`: files of images that had been erased, and that a kill or a power cut had left behind.
    """

    temporary_removed: int
    erased: int
    reindexed: tuple[str, ...]
    missing: tuple[SpooledInstance, ...]
    damaged: tuple[Path, ...]

    def log(self) -> None:
        """One line for every image that was lost or damaged, and one about all."""
        for instance in self.missing:
            log.error("event=spool_file_missing sop=%s sha256=%s", instance.sop_instance_uid, instance.sha256)
        for path in self.damaged:
            log.error("event=spool_file_damaged file=%s", path.name)
        log.info(
            "event=spool_swept temporary_removed=%d erased=%d reindexed=%d missing=%d damaged=%d",
            self.temporary_removed,
            self.erased,
            len(self.reindexed),
            len(self.missing),
            len(self.damaged),
        )
