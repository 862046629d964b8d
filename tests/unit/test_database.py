"""The state database under several processes at once."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from mr_images import STUDY, as_file, make_mr
from sqlalchemy import Column, Integer, Table, inspect, text
from sqlalchemy.exc import OperationalError

from dicom_node.database import metadata, open_database, require_whole
from dicom_node.errors import ConfigError
from dicom_node.intake.spool import Spool

WRITER = """
    import sys, time
    from sqlalchemy import text
    from dicom_node.database import open_database, writing
    engine = open_database(sys.argv[1])
    with writing(engine) as connection:
        connection.execute(text("CREATE TABLE numbers (n INTEGER)"))
    print("writing", flush=True)
    while True:
        with writing(engine) as connection:
            connection.execute(text("INSERT INTO numbers VALUES (1)"))
"""


def test_new_tables_are_made_while_another_process_writes(tmp_path: Path) -> None:
    """A version with one table more starts beside a busy receiver: "database is locked" would end it at once."""
    url = f"sqlite:///{tmp_path / 'node.db'}"
    writer = subprocess.Popen([sys.executable, "-c", textwrap.dedent(WRITER), url], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    try:
        assert writer.stdout.readline() == "writing\n"
        for number in range(20):
            later = Table(f"later_{number}", metadata, Column("n", Integer))
            try:
                engine = open_database(url)
            finally:
                metadata.remove(later)
            assert inspect(engine).has_table(later.name)
    finally:
        writer.kill()
        writer.wait()
        writer.stdout.close()


def test_a_failed_statement_does_not_repeat_what_somebody_searched_for(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'node.db'}")
    with pytest.raises(OperationalError) as failed, engine.connect() as connection:
        connection.execute(text("SELECT * FROM nowhere WHERE name = :name"), {"name": "Curie"})
    assert "Curie" not in str(failed.value)
    engine.dispose()


@pytest.mark.parametrize("damage", ["header", "middle"])
def test_f29_a_damaged_database_is_refused_untouched_and_its_images_are_indexed_anew(
    tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "node.db"
    engine = open_database(f"sqlite:///{path}")
    spool = Spool(tmp_path / "spool", engine)
    for _ in range(40):
        spool.store(as_file(make_mr()), source="SCANNER", at=1.0)
    engine.dispose()
    content = bytearray(path.read_bytes())
    start = 0 if damage == "header" else 4096
    content[start : start + 4096 * 6] = b"\xa5" * (4096 * 6)
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"node\.db: the state database is damaged"):
        require_whole(open_database(f"sqlite:///{path}"))
    assert path.read_bytes() == bytes(content)
    for one in tmp_path.glob("node.db*"):
        one.rename(tmp_path / f"damaged-{one.name}")
    anew = open_database(f"sqlite:///{path}")
    require_whole(anew)
    again = Spool(tmp_path / "spool", anew)
    again.sweep()
    assert len(again.instances(STUDY)) == 40
