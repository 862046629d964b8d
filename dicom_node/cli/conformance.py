"""Write the standards papers from the program: the DICOM Conformance Statement and the IHE AIR capability sheet.

  hydrops-node conformance --write docs           conformance.md and ihe-air.md into docs/
  hydrops-node conformance --check docs           say whether the pages there are those of this program
  hydrops-node conformance                        print the statement

Takes about 10 s: example objects are made by the node's own encoders and read off attribute by attribute.

Exit status: 0 written, or the same; 1 another page stands there; 2 the folder cannot be used.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from dicom_node.errors import UnusableInput


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `conformance`."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--write", type=Path, metavar="FOLDER", help="write the pages into this folder")
    where.add_argument("--check", type=Path, metavar="FOLDER", help="compare with the pages in this folder")


def run(arguments: argparse.Namespace) -> int:
    """Make the pages, and write, compare or print them."""
    from dicom_node.cli.logs import silence_quotations
    from dicom_node.conformance.ihe_air import air_sheet
    from dicom_node.conformance.statement import statement

    silence_quotations()
    if arguments.write is None and arguments.check is None:
        print(statement(), end="")
        return 0
    pages = {"conformance.md": statement(), "ihe-air.md": air_sheet()}
    folder = arguments.write or arguments.check
    if not folder.is_dir():
        raise UnusableInput(f"{folder}: no such folder; pass the folder that holds the pages")
    return _write(folder, pages) if arguments.write else _check(folder, pages)


def _write(folder: Path, pages: dict[str, str]) -> int:
    for name, text in pages.items():
        (folder / name).write_text(text, encoding="utf-8")
        print(f"written: {folder / name}")
    return 0


def _check(folder: Path, pages: dict[str, str]) -> int:
    different = []
    for name, text in pages.items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            different.append(path)
    for path in different:
        print(f"{path}: not the page of this program; write it anew with: hydrops-node conformance --write {folder}")
    return 1 if different else 0
