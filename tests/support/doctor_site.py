"""A configuration in a folder, and `hydrops-node doctor` run on it as an operator runs it."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from free_ports import free_port

from dicom_node.cli import main

RULES = Path(__file__).resolve().parents[2] / "config" / "series_rules.toml"


@dataclass(frozen=True)
class Findings:
    """What doctor found: its exit status and its lines."""

    status: int
    lines: list[dict[str, Any]]

    def of(self, level: str) -> list[str]:
        """The texts of one level."""
        return [line["text"] for line in self.lines if line["level"] == level]

    @property
    def problems(self) -> list[str]:
        return self.of("problem")

    @property
    def warnings(self) -> list[str]:
        return self.of("warning")

    def step(self, words: str) -> str:
        """The next step of the one line whose text holds `words`."""
        (found,) = (line["next_step"] for line in self.lines if words in line["text"])
        return str(found)


class DoctorSite:
    """`more` is TOML that goes under the ports and the state folder."""

    def __init__(self, folder: Path, more: str = "", *, listener: str = "") -> None:
        self.config = folder / "node.toml"
        self.state = folder / "state"
        self.dicom_port, self.web_port = free_port(), free_port()
        shutil.copy(RULES, folder)
        self.config.write_text(
            f'[node]\nstate_dir = "{self.state}"\n'
            f"[listener]\nport = {self.dicom_port}\nmin_free_bytes = 0\n{listener}\n"
            f"[web]\nport = {self.web_port}\n{more}\n",
            encoding="utf-8",
        )

    def run(self, *words: str) -> str:
        """Standard output of doctor with `words`."""
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            self.status = main(["doctor", "--config", str(self.config), *words])
        return output.getvalue()

    def find(self, *checks: str, more: tuple[str, ...] = ()) -> Findings:
        """What these checks find."""
        only = [word for name in checks for word in ("--only", name)]
        document = json.loads(self.run("--json", *only, *more))
        assert document["problems"] == sum(line["level"] == "problem" for line in document["findings"])
        return Findings(self.status, document["findings"])


def dicom_destination(port: int, *, called_ae: str = "PACS", name: str = "pacs", more: str = "") -> str:
    """TOML of one receiver on this machine."""
    return (
        f'[[destinations]]\nname = "{name}"\nkind = "dicom"\nhost = "127.0.0.1"\nport = {port}\n'
        f'called_ae = "{called_ae}"\ntimeout_s = 60.0\n{more}\n'
    )
