"""Every fault that the node is to stand, and what shows that it does: a row of the campaign, tests, or both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fault import Fault


@dataclass(frozen=True, kw_only=True)
class MatrixRow:
    """One fault in words, and tests (`file::test` below `tests/`) that show it beside the campaign or instead of it."""

    title: str
    tests: tuple[str, ...] = ()


_FEED: Final = "integration/test_orthanc_feed.py"
_CLIENT: Final = "integration/test_orthanc_client.py"
_COMPLETENESS: Final = "unit/assembly/test_completeness.py"
_ADMISSION: Final = "integration/intake/test_listener_admission.py"

MATRIX: Final[Mapping[str, MatrixRow]] = {
    "F01": MatrixRow(title="kill -9 while receiving"),
    "F02": MatrixRow(title="power cut"),
    "F03": MatrixRow(title="kill -9 in each step of computing"),
    "F04": MatrixRow(
        title="Orthanc or node restarted inside the quiet time",
        tests=(
            f"{_FEED}::test_orthanc_killed_before_the_series_is_stable_loses_nothing",
            f"{_FEED}::test_half_a_series_is_not_taken_for_the_whole_after_orthanc_was_restarted_in_the_middle",
            f"{_FEED}::test_the_look_at_the_start_finds_what_the_change_log_no_longer_tells",
            "story/test_node.py::test_a_node_killed_right_after_the_last_image_was_acknowledged_finishes_after_its_restart",
        ),
    ),
    "F05": MatrixRow(title="whole queue replayed, database of an older backup"),
    "F06": MatrixRow(
        title="series in pieces, late images",
        tests=(
            f"{_COMPLETENESS}::test_a_gap_waits_for_quiet_and_is_then_refused_as_a_gap",
            f"{_COMPLETENESS}::test_a_missing_tail_waits_and_is_refused_because_the_partner_is_longer",
            "unit/test_study_desk.py::test_a_late_image_while_the_study_is_queued_drops_the_work",
        ),
    ),
    "F07": MatrixRow(
        title="SIGTERM under load",
        tests=(
            f"{_ADMISSION}::test_f07_stop_lets_a_live_association_finish_and_takes_no_new_one",
            f"{_ADMISSION}::test_f07_stop_aborts_who_does_not_leave_in_time",
        ),
    ),
    "F08": MatrixRow(
        title="disk full at receiving",
        tests=(
            "integration/intake/test_spool_full_disk.py::"
            "test_f08_a_full_disk_is_try_later_leaves_no_orphan_and_recovers_when_space_returns",
            "integration/intake/test_listener_store.py::"
            "test_f08_a_low_disk_refuses_images_but_answers_echo_and_recovers_unaided",
        ),
    ),
    "F09": MatrixRow(
        title="disk full while writing database, outbox, log",
        tests=(
            "integration/test_workflow.py::test_a_disk_that_fails_for_a_moment_is_tried_again",
            "unit/cli/test_node_audit.py::test_a_disk_that_does_not_take_the_entry_stops_nobody",
        ),
    ),
    "F10": MatrixRow(title="input/output error on fsync"),
    "F11": MatrixRow(title="disk turns read-only"),
    "F12": MatrixRow(title="bit rot in a kept image or result"),
    "F13": MatrixRow(title="PACS down"),
    "F14": MatrixRow(
        title="PACS rejects the association",
        tests=(
            "integration/delivery/test_store_scu.py::test_a_wrong_called_ae_title_stops_and_names_the_destination",
            "unit/delivery/test_peer_answers.py::test_a_rejection_is_told_in_words_with_the_next_step",
        ),
    ),
    "F15": MatrixRow(title="PACS answers with warnings and failures"),
    "F16": MatrixRow(title="connection cut during sending"),
    "F17": MatrixRow(title="slow PACS"),
    "F18": MatrixRow(
        title="Orthanc answers 401, 404, 500, cut short, never, with a redirect",
        tests=(
            f"{_CLIENT}::test_each_status_has_its_class_and_all_are_tried_again",
            f"{_CLIENT}::test_a_body_cut_short_is_not_taken",
            f"{_CLIENT}::test_silence_and_drops_are_given_up",
            f"{_CLIENT}::test_a_redirect_is_not_followed",
            f"{_CLIENT}::test_a_series_that_cannot_be_asked_about_holds_the_cursor_only_for_a_while",
            f"{_FEED}::test_a_file_that_is_not_found_though_orthanc_lists_its_image_is_not_taken_for_deleted",
        ),
    ),
    "F19": MatrixRow(
        title="study deleted or changed in Orthanc",
        tests=(
            f"{_FEED}::test_a_deleted_study_leaves_a_gap_and_no_error",
            f"{_FEED}::test_a_replaced_image_is_kept_as_a_conflict",
            f"{_FEED}::test_a_replaced_image_that_was_given_up_is_asked_for_again",
        ),
    ),
    "F20": MatrixRow(
        title="flood of associations",
        tests=(f"{_ADMISSION}::test_f20_two_hundred_connects_and_eight_senders_lose_nothing",),
    ),
    "F21": MatrixRow(
        title="stalled peers",
        tests=(
            f"{_ADMISSION}::test_f21_stalled_peers_hold_no_association_and_are_dropped",
            f"{_ADMISSION}::test_f21_an_announced_pdu_of_4_gib_is_never_collected",
        ),
    ),
    "F22": MatrixRow(
        title="port scans, hellos of other protocols",
        tests=(f"{_ADMISSION}::test_f22_strangers_on_the_port_leave_no_thread_behind",),
    ),
    "F23": MatrixRow(title="long run: memory and descriptors stay flat"),
    "F24": MatrixRow(title="worker out of memory, crashed, hanging"),
    "F25": MatrixRow(title="poison between good studies"),
    "F26": MatrixRow(title="two nodes on one state folder"),
    "F27": MatrixRow(title="two workers at one study, one past its lease"),
    "F28": MatrixRow(
        title="clock jumps",
        tests=(
            "unit/test_clock_set_while_studies_wait.py::test_f28_a_clock_that_jumps_gives_one_result_under_the_same_uids",
            "unit/test_clock_set_while_studies_wait.py::"
            "test_f28_a_study_that_waits_while_the_clock_is_set_back_waits_for_one_quiet_time_more",
            "unit/test_clock_set_while_studies_wait.py::test_f28_a_clock_put_forward_closes_no_study_early",
            "unit/delivery/test_clock_set.py::test_f28_after_the_clock_was_set_what_waits_goes_at_once",
            "unit/delivery/test_clock_set.py::test_f28_a_clock_put_forward_gives_nothing_up",
        ),
    ),
    "F29": MatrixRow(
        title="database locked, growing, damaged",
        tests=(
            "unit/test_database.py::test_f29_a_damaged_database_is_refused_untouched_and_its_images_are_indexed_anew",
        ),
    ),
    "F30": MatrixRow(
        title="upgrade with work in flight",
        tests=(
            "integration/test_rolling_upgrade.py::"
            "test_work_in_flight_is_left_to_its_version_and_begun_anew_when_the_last_worker_of_it_has_gone",
            "unit/cli/test_node_state.py::test_an_index_that_a_newer_version_declares_is_added_to_an_old_database",
        ),
    ),
    "F31": MatrixRow(title="bad edits of the configuration"),
    "F32": MatrixRow(title="descriptors exhausted"),
}


_STAYS_INSIDE: Final = "story/test_patient_data_stays_inside.py"

INVARIANTS: Final[Mapping[str, MatrixRow]] = {
    "I1": MatrixRow(
        title="each image answered with success is there, byte for byte: every row with a sender, by its ledger"
    ),
    "I2": MatrixRow(
        title="one segmentation and one report for each set, model and configuration: F03, F05, F07, F24, F27, by the "
        "PACS's ledger",
        tests=("story/test_node.py::test_a_study_sent_twice_by_c_store_gives_one_result",),
    ),
    "I3": MatrixRow(
        title="no result of an incomplete, invalid or mismatched set: F12, F25",
        tests=("unit/test_bad_input_beside_good.py::test_a_bad_study_ends_with_one_code_and_keeps_all_its_images",),
    ),
    "I4": MatrixRow(
        title="after a quiet time all is done, refused with a reason, or a dead letter: F12 result, F15 final, F24",
        tests=(
            "unit/test_bad_input_beside_good.py::test_nothing_of_it_is_a_fault_and_no_name_stands_in_the_log",
            "integration/test_workflow.py::test_a_disk_that_fails_for_a_moment_is_tried_again",
        ),
    ),
    "I5": MatrixRow(title="no temporary or unreferenced file after the start-up sweep: every row's column 'left over'"),
    "I6": MatrixRow(title="threads, descriptors and memory as before: F20, F21, F22, F23"),
    "I7": MatrixRow(
        title="nothing of a patient in a log",
        tests=(f"{_STAYS_INSIDE}::test_s23_no_planted_value_is_in_a_log",),
    ),
    "I8": MatrixRow(
        title="the audit trail says what the sender's and the PACS's ledgers say",
        tests=(
            f"{_STAYS_INSIDE}::"
            "test_i8_the_audit_trail_says_who_sent_how_much_and_who_was_turned_away_and_of_nothing_that_did_not_happen",
            "story/test_node.py::test_a_study_sent_twice_by_c_store_gives_one_result",
        ),
    ),
}
"""What must hold after every fault, seen from outside; which rows look at it, and what looks at it beside them."""


def matrix_page(faults: Sequence[Fault]) -> list[str]:
    """Lines of a table: each fault, its rows of the campaign, its tests; what neither shows says so."""
    lines = ["| | Fault | Shown by |", "|---|---|---|"]
    for number, row in MATRIX.items():
        rows = [one.number for one in faults if one.number.split()[0] == number]
        shown = [*([f"campaign: {', '.join(rows)}"] if rows else []), *row.tests]
        lines.append(f"| {number} | {row.title} | {'; '.join(shown) or 'not shown yet'} |")
    lines += [
        "",
        "## What holds after every fault",
        "",
        "| | What is looked at, and by which rows | Also by |",
        "|---|---|---|",
    ]
    lines += [f"| {number} | {row.title} | {'; '.join(row.tests)} |" for number, row in INVARIANTS.items()]
    return lines
