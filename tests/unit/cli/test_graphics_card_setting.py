"""`processing.device`: what an operator is told when the graphics card that was asked for is not there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from doctor_site import DoctorSite

from dicom_node.assembly.site_rules import read_rules
from dicom_node.cli.wiring import make_segmenter, settings_digest
from dicom_node.errors import ConfigError
from dicom_node.settings import Settings, read_settings
from inference.learned import NetworkSegmenter
from inference.method import METHOD

without_card = pytest.mark.skipif(torch.cuda.is_available(), reason="a graphics card is here")


@without_card
def test_doctor_warns_of_a_card_that_is_wanted_and_not_there(tmp_path: Path) -> None:
    (warned,) = DoctorSite(tmp_path, '[processing]\ndevice = "cuda"\n').find("processor").warnings
    assert "torch sees no GPU; the CPU computes instead" in warned
    assert DoctorSite(tmp_path).find("processor").warnings == []


@without_card
def test_without_the_card_the_processor_computes_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site = DoctorSite(tmp_path, '[processing]\ndevice = "cuda"\n')
    segmenter = make_segmenter(read_settings(site.config, {}))
    assert isinstance(segmenter, NetworkSegmenter)
    assert segmenter.card is None
    assert "event=graphics_card_unused reason=torch sees none; the processor computes" in caplog.text


def test_another_device_is_refused_by_name(tmp_path: Path) -> None:
    site = DoctorSite(tmp_path, '[processing]\ndevice = "tpu"\n')
    with pytest.raises(ConfigError, match=r"processing\.device.*cpu, cuda.*tpu"):
        read_settings(site.config, {})


def test_a_study_has_the_same_identity_on_every_device_and_another_with_another_model() -> None:
    """Workers with and without a card share the studies: the second try must replace the first, not stand beside it."""
    plain, rules = Settings(), read_rules("")
    carded = replace(plain, processing=replace(plain.processing, device="cuda", threads=3))
    other = replace(plain, processing=replace(plain.processing, model="threshold"))
    assert settings_digest(carded, rules) == settings_digest(plain, rules)
    assert settings_digest(other, rules) != settings_digest(plain, rules)


def test_another_method_of_making_numbers_makes_other_results(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, rules = Settings(), read_rules("")
    before = settings_digest(settings, rules)
    monkeypatch.setattr("dicom_node.cli.wiring.METHOD", f"{METHOD}+")
    assert settings_digest(settings, rules) != before
