"""The distribution that models are judged on: fixed by its name, drawn from the seed, true to its description."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace

import numpy as np

from inference.anatomy import EarSide
from inference.cases import InputSet
from inference.evaluation.cohort import DESCRIPTION, VERSION, compartments, patient
from inference.geometry import VolumeGeometry
from inference.phantom.study import draw_patient
from inference.phantom.voxelization import filled_fraction


def test_a_seed_is_one_patient_whichever_series_are_made() -> None:
    one, all_of_them = patient(900_007, (InputSet.REAL_IR,)), patient(900_007)
    assert one.series == ("MRC", "REAL_IR")
    assert set(all_of_them.series) == {"MRC", "PPI", "PEI", "HYDROPS", "HYDROPS_MI2", "REAL_IR"}
    assert {key: value for key, value in vars(one).items() if key != "series"} == {
        key: value for key, value in vars(all_of_them).items() if key != "series"
    }
    assert patient(900_008).eh_ratio != one.eh_ratio


def test_the_patients_are_those_of_the_description() -> None:
    drawn = [patient(seed) for seed in range(900_000, 900_400)]
    numbers = {float(number) for number in re.findall(r"\d+(?:\.\d+)?", DESCRIPTION)}
    ratios = [one.eh_ratio[side] for one in drawn for side in EarSide]
    for values, low, high in (
        (ratios, 0.06, 0.5),
        ([one.contrast_snr for one in drawn], 3, 12),
        ([one.mrc_snr for one in drawn], 25, 60),
        ([one.resolution for one in drawn], 1, 1.3),
        ([one.motion_mm for one in drawn], 0, 3),
        ([one.oblique_deg[0] for one in drawn], -25, 25),
    ):
        assert low <= min(values) < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < max(values) <= high
        assert {abs(low), high} - numbers <= {0}
    weak = np.mean([one.contrast.value == "weak" for one in drawn])
    assert 0.14 < weak < 0.26


def test_compartments_of_a_phantom_fill_its_fluid_and_lie_where_anatomy_puts_them() -> None:
    """The cochlea lies in front of the vestibule, the canals behind it; LPS y grows to the back."""
    person = draw_patient(replace(patient(900_001), step_mm=0.25))
    for fluid in person.fluids.values():
        affine = np.diag([0.5, 0.5, 0.5, 1.0])
        affine[:3, 3] = np.array(fluid.center_lps_mm) - 12.0
        box = VolumeGeometry(shape=(48, 48, 48), index_to_lps=affine, frame_of_reference_uid="1.2.3")
        labels = np.asarray(compartments(fluid, box).array)
        assert np.array_equal(labels > 0, filled_fraction(fluid.lps_mm, fluid.volume_mm3, box) > 0)
        behind_mm = [box.to_lps(np.argwhere(labels == number))[:, 1].mean() for number in (1, 2, 3)]
        assert behind_mm == sorted(behind_mm)
        assert behind_mm[2] - behind_mm[0] > 4.0


def test_a_changed_distribution_needs_another_name() -> None:
    values = [
        (p.eh_ratio[EarSide.LEFT], p.eh_ratio[EarSide.RIGHT], *p.oblique_deg, p.contrast_snr, p.mrc_snr, p.motion_deg)
        for p in map(patient, range(900_000, 900_005))
    ]
    digest = hashlib.sha256(np.round(np.array(values), 6).tobytes()).hexdigest()[:16]
    assert {VERSION: digest} == {"realistic-1": "9ae6113e3bcdbd72"}
