"""The state database under several processes at once."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

from sqlalchemy import Column, Integer, Table, inspect

from dicom_node.database import metadata, open_database

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
