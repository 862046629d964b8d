"""The scripts that docs/connect.md gives to other systems work in those systems."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from local_orthanc import LocalOrthanc
from orthanc_parts import mr_series, storescu
from patience import wait_until

from dicom_node.database import open_database
from dicom_node.intake.listener import AllowedPeer, Listener, ListenerOptions
from dicom_node.intake.spool import Spool

PAGE = (Path(__file__).parents[2] / "docs" / "connect.md").read_text(encoding="utf-8")


@pytest.mark.orthanc
@pytest.mark.dcmtk
@pytest.mark.parametrize("language", ["lua", "python"])
def test_the_script_of_the_page_forwards_mr_series_and_nothing_else_by_c_store(language: str, tmp_path: Path) -> None:
    (text,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    script = tmp_path / ("forward.lua" if language == "lua" else "forward.py")  # Orthanc looks at the ending
    script.write_text(text, encoding="utf-8")
    loaded = {"lua_scripts": [script]} if language == "lua" else {"python_script": script}
    engine = open_database(f"sqlite:///{tmp_path / 'node.db'}")
    spool = Spool(tmp_path / "spool", engine)
    orthanc_only = AllowedPeer(ae_title="ORTHANC", networks=("127.0.0.1/32",))
    listener = Listener(ListenerOptions(ae_title="HYDROPS", port=0, allowed=(orthanc_only,)), spool)
    listener.start()
    node = {"hydrops": ["HYDROPS", "127.0.0.1", listener.port]}
    study, _, images = mr_series(3)
    _, other, pictures = mr_series(1, study=study, modality="CT")
    try:
        with LocalOrthanc(extra={"DicomModalities": node, "StableAge": 1}, **loaded) as orthanc:
            storescu(orthanc, [*pictures, *images], tmp_path / "images")
            wait_until(lambda: len(spool.instances(study)) == len(images))
    finally:
        listener.stop(drain_s=0)
    assert other not in {instance.series_instance_uid for instance in spool.instances(study)}
    engine.dispose()
