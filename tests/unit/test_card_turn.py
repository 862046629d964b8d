"""Processes that share a graphics card ask it one after the other; shown with processes, without a card."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from patience import PATIENCE_S, wait_until
from torch import Tensor, nn

from dicom_node.card_turn import CardTurn
from inference.graphics_card import NEEDED_BYTES, GraphicsCard

HOLDER = """
import sys
from pathlib import Path
from dicom_node.card_turn import CardTurn
with CardTurn(Path(sys.argv[1]))() as mine:
    print(mine, flush=True)
    sys.stdin.readline()
"""

CROWD = """
import os, sys
from pathlib import Path
from dicom_node.card_turn import CardTurn
turn, inside = CardTurn(Path(sys.argv[1]), patience_s=600.0), Path(sys.argv[2])
for _ in range(20):
    with turn() as mine:
        assert mine
        os.close(os.open(inside, os.O_CREAT | os.O_EXCL))  # fails where another is in here
        inside.unlink()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "card-1.lock"


def holder(path: Path) -> subprocess.Popen[str]:
    """Another process, which has the turn when this returns."""
    command = [sys.executable, "-c", HOLDER, str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    return process


class Network(nn.Module):
    """Answers zeros, and counts in which precision it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[torch.dtype] = []

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self.asked.append(images.dtype)
        return images[:, :2] * 0.0, images[:, 0, 0, 0, 0] * 0.0


def test_processes_are_never_at_the_card_together(path: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", CROWD, str(path), str(tmp_path / "inside")]
    crowd = [subprocess.Popen(command) for _ in range(3)]
    assert [one.wait(PATIENCE_S) for one in crowd] == [0, 0, 0]


def test_whoever_waits_too_long_is_told_that_it_is_not_its_turn(path: Path) -> None:
    other = holder(path)
    with CardTurn(path, patience_s=0.05)() as mine:
        assert not mine
    other.communicate("go\n", timeout=PATIENCE_S)
    with CardTurn(path, patience_s=PATIENCE_S)() as mine:
        assert mine


def test_a_holder_that_is_killed_gives_its_turn_back(path: Path) -> None:
    other = holder(path)
    other.kill()
    other.wait(PATIENCE_S)
    with CardTurn(path, patience_s=PATIENCE_S)() as mine:
        assert mine


def test_the_processor_computes_while_others_hold_the_card_and_the_card_is_asked_again_for_the_next_study(
    path: Path,
) -> None:
    told: list[str] = []
    network = Network()
    card = GraphicsCard(
        network,
        torch.device("cpu"),
        tell=told.append,
        turn=CardTurn(path, patience_s=0.05),
        free_bytes=lambda: NEEDED_BYTES,
    )
    images = torch.zeros(2, 4, 2, 2, 2)
    other = holder(path)
    card(images)
    assert told == ["others hold it for too long; the processor computes this study"]
    assert network.asked == [torch.float32]
    other.communicate("go\n", timeout=PATIENCE_S)
    wait_until(lambda: not card(images)[0].any() and len(told) == 1)


def test_the_turn_is_given_back_after_every_study(path: Path) -> None:
    turn = CardTurn(path, patience_s=PATIENCE_S)
    card = GraphicsCard(
        Network(), torch.device("cpu"), tell=lambda _sentence: None, turn=turn, free_bytes=lambda: NEEDED_BYTES
    )
    card(torch.zeros(2, 4, 2, 2, 2))
    assert path.exists()
    other = holder(path)
    other.communicate("go\n", timeout=PATIENCE_S)
