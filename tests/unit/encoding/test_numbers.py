import math

import pytest

from dicom_node.encoding.numbers import percent, percent_text, volume_mm3, volume_text


@pytest.mark.parametrize(
    ("ratio", "printed"),
    [(0.271, 27.1), (0.2705, 27.1), (0.27049, 27.0), (0.0, 0.0), (1.0, 100.0), (0.0004, 0.0), (0.0005, 0.1)],
)
def test_a_ratio_is_printed_in_per_cent_with_one_decimal_and_halves_go_up(ratio, printed):
    assert percent(ratio) == printed


def test_nobody_can_read_27_percent_as_0_27_percent():
    assert percent_text(0.271) == "27.1 %"
    assert percent_text(0.3) == "30.0 %"


@pytest.mark.parametrize("ratio", [27.1, -0.01, math.nan, math.inf])
def test_a_number_that_is_no_ratio_is_not_printed(ratio):
    with pytest.raises(ValueError, match=r"0\.\.1"):
        percent(ratio)


def test_a_volume_has_one_decimal_and_its_unit():
    assert volume_mm3(183.449) == 183.4
    assert volume_text(49.75) == "49.8 mm3"


@pytest.mark.parametrize("volume", [-0.1, math.nan])
def test_an_impossible_volume_is_not_printed(volume):
    with pytest.raises(ValueError, match="not negative"):
        volume_mm3(volume)
