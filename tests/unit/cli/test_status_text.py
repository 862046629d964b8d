"""What `hydrops-node status` prints about numbers: the same digits as the report."""

from __future__ import annotations

from dicom_node.cli.status import _ear_lines

EAR = {
    "evaluated": True,
    "quality": [{"message": "Perilymph is only weakly enhanced."}],
    "total_fluid_mm3": 182.6893831130085,
    "endolymph_mm3": 24.31,
    "eh_ratio": {"value": 0.13309, "low": 0.0067, "high": 0.2602},
}
NOTHING = {
    "evaluated": False,
    "quality": [],
    "total_fluid_mm3": None,
    "endolymph_mm3": None,
    "eh_ratio": {"value": None, "low": None, "high": None},
}
MODEL = {"name": "ear", "version": "1.0"}


def test_volumes_have_one_decimal_and_ratios_are_per_cent() -> None:
    ears = {"right": EAR, "left": NOTHING}
    lines = _ear_lines({"status": "computed", "ears": ears, "model": MODEL, "quality": [], "remarks": []})
    assert lines == [
        "  Right ear: EH ratio 13.3 % (95 % interval 0.7 % to 26.0 %), "
        "total fluid space 182.7 mm3, endolymph 24.3 mm3.",
        "  Perilymph is only weakly enhanced.",
        "  Left ear: not evaluated.",
    ]


def test_a_refused_study_has_no_numbers() -> None:
    assert _ear_lines({"status": "refused", "ears": {"right": NOTHING, "left": NOTHING}}) == ["  no numbers"]
