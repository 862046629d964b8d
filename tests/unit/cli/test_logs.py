"""What is logged never quotes what a library or a data set says."""

from __future__ import annotations

import logging
import subprocess
import sys
import textwrap
from pathlib import Path

from patience import STUDY_S
from scanned_series import MRC, PEI, PPI, data_sets, with_raw, write_files

from dicom_node.cli.logs import LOG_FORMAT, DiscreetFormatter

MARKER = "ZZMARKER"


def test_a_traceback_shows_types_and_places_but_no_message() -> None:
    try:
        try:
            raise KeyError(f"{MARKER}^Name")
        except KeyError as cause:
            raise ValueError(f"bad value {MARKER}") from cause
    except ValueError as error:
        record = logging.LogRecord("x", logging.ERROR, __file__, 1, "event=failed", None, (ValueError, error, None))
    text = DiscreetFormatter(LOG_FORMAT).format(record)
    assert MARKER not in text
    assert text.index("KeyError") < text.index("ValueError")
    assert Path(__file__).name in text


def test_neither_warnings_nor_a_dying_thread_nor_the_engine_quote_a_patient() -> None:
    program = f"""
        import logging, threading, warnings
        from dicom_node.cli.logs import start_logging
        start_logging("debug")
        import pydicom, dbos
        dbos._logger.init_logger()
        image = pydicom.Dataset()
        image.PatientBirthDate = "{MARKER}"
        warnings.warn("{MARKER}")
        def fail():
            raise ValueError("{MARKER}")
        thread = threading.Thread(target=fail, name="Failing")
        thread.start()
        thread.join()
        try:
            fail()
        except ValueError:
            logging.getLogger("dbos").error("event=engine_failed", exc_info=True)
    """
    said = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=STUDY_S, check=True
    )
    assert MARKER not in said.stderr + said.stdout
    assert "event=thread_ended thread=Failing" in said.stderr
    assert said.stderr.count("event=engine_failed") == 1


def test_process_prints_nothing_of_a_patient_even_where_the_values_are_illegal(tmp_path: Path) -> None:
    images = [one for scan in (MRC, PPI, PEI) for one in data_sets(scan)]
    for one in images:
        with_raw(one, "PatientName", "PN", f"{MARKER}^".encode() + b"\xff" * 70)
        with_raw(one, "PatientID", "LO", MARKER.encode() * 12)
        with_raw(one, "PatientBirthDate", "DA", MARKER.encode())
    write_files(images, tmp_path / "study")
    command = [sys.executable, "-m", "dicom_node.cli", "process", str(tmp_path / "study"), "--out", str(tmp_path / "r")]
    said = subprocess.run(command, capture_output=True, text=True, timeout=STUDY_S, check=False)
    assert "not computed" in said.stderr
    assert MARKER not in said.stderr + said.stdout
