"""Marks stand where their numbers are, and axes begin at zero with round steps."""

from __future__ import annotations

import pytest

from dicom_node.web.plots import Line, Mark, Upright, plot, thinned, tick_step


def drawn(*marks: Mark):
    return plot("ratio", "words", [Line(name="left ear", kind="left", marks=marks)], x_ticks=[(0.0, "a")], unit="%")


def test_a_mark_stands_in_proportion_to_its_number():
    result = drawn(Mark(x=0.0, y=0.0, title=""), Mark(x=5.0, y=20.0, title=""), Mark(x=10.0, y=40.0, title=""))
    first, middle, last = result.lines[0].marks
    assert first.y == result.bottom
    assert last.y == result.top
    assert middle.y == pytest.approx(0.5 * (first.y + last.y))
    assert middle.x == pytest.approx(0.5 * (first.x + last.x))
    assert result.lines[0].points == f"{first.x},{first.y} {middle.x},{middle.y} {last.x},{last.y}"


def test_an_interval_fits_into_the_plot():
    result = drawn(Mark(x=0.0, y=30.0, low=10.0, high=57.0, title=""))
    (mark,) = result.lines[0].marks
    assert mark.high is not None
    assert mark.low is not None
    assert result.top <= mark.high < mark.y < mark.low <= result.bottom


def test_the_y_axis_begins_at_zero_and_its_words_are_round():
    result = drawn(Mark(x=0.0, y=43.0, title=""))
    assert [tick.word for tick in result.y_ticks] == ["0 %", "10 %", "20 %", "30 %", "40 %", "50 %"]
    assert result.y_ticks[0].at == result.bottom


@pytest.mark.parametrize(("top", "step"), [(43.0, 10.0), (1.0, 0.2), (0.0, 1.0), (740.0, 200.0), (5.0, 1.0)])
def test_steps_are_one_two_or_five_times_a_power_of_ten(top, step):
    assert tick_step(top) == pytest.approx(step)


def test_a_single_mark_stands_in_the_middle_and_a_change_at_its_place():
    line = Line(name="", kind="left", marks=(Mark(x=3.0, y=1.0, title=""),))
    result = plot("", "", [line], x_ticks=[], unit="", uprights=[Upright(x=3.0, word="now oto 2")])
    assert result.lines[0].marks[0].x == result.uprights[0].at
    assert result.left < result.uprights[0].at < result.right


def test_words_on_an_axis_are_thinned_evenly():
    ticks = [(float(n), str(n)) for n in range(20)]
    assert [word for _at, word in thinned(ticks, at_most=8)] == ["0", "3", "6", "9", "12", "15", "18"]
