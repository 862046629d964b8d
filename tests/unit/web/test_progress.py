"""The steps that the dashboard knows are those that the worker takes."""

from __future__ import annotations

import re
from pathlib import Path

from dicom_node.web.progress import STEPS

WORKER = ("computation.py", "casework.py", "pipeline.py", "picture_desk.py")


def test_every_step_of_the_worker_has_words_and_no_other() -> None:
    folder = Path(__file__).parents[3] / "dicom_node"
    named = [name for file in WORKER for name in re.findall(r'with step\("([^"]+)"\)', (folder / file).read_text())]
    assert len(named) > 10
    assert set(named) == set(STEPS)
