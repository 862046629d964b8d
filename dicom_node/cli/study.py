"""Have something done to a study: computed again, examined again, taken as complete, put first, stopped, sent again.

hydrops-node study retry UID                      a failed study is computed again
hydrops-node study replay UID                     an ended one is examined again, as rules, model and settings are today
hydrops-node study force UID                      a waiting one is taken as complete, with what is there
hydrops-node study first UID                      one that stands in line is computed next
hydrops-node study cancel UID                     one that is not finished is stopped; nothing of it is sent
hydrops-node study resend UID --destination NAME  its results go to one destination again, as the same bytes

The worker does it on its next look round; this command waits for that and prints what became of it. Every request
is in the audit trail under the name of the user who ran the command. Exit status: 0 done, 1 declined or not seen to.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicom_node.study_requests import StudyAction

if TYPE_CHECKING:
    from dicom_node.study_actions import ActionOutcome, StudyActions
    from dicom_node.study_requests import StudyRequests

WORKER_S: Final = 10.0
"""A worker that looks round four times a second has answered by then, unless it reads many headers for it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `study`."""
    parser.add_argument("action", choices=[action.value for action in StudyAction], help="what to do")
    parser.add_argument("study", metavar="UID", help="Study Instance UID")
    parser.add_argument("--destination", default="", metavar="NAME", help="resend: where to, as in the configuration")
    parser.add_argument("--config", default="config/node.toml", metavar="NODE_TOML", help="default: %(default)s")
    parser.add_argument(
        "--wait",
        type=float,
        default=WORKER_S,
        metavar="SECONDS",
        help="how long to wait for the worker's answer (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Ask, wait for the worker, and print what became of it."""
    from dicom_node.cli.os_user import os_user
    from dicom_node.cli.wiring import load_settings, study_actions
    from dicom_node.database import open_database
    from dicom_node.errors import UnusableInput
    from dicom_node.study_requests import StudyRequests

    loaded = load_settings(Path(arguments.config))
    if not loaded.state_dir.is_dir():
        raise UnusableInput(f"{loaded.state_dir}: no state here yet; has the node run with this configuration?")
    engine = open_database(loaded.database_url)
    action = StudyAction(arguments.action)
    if (action is StudyAction.RESEND) != bool(arguments.destination):
        raise UnusableInput("resend needs --destination NAME; the other actions take none")
    outcome = _ask(study_actions(loaded, engine), action, arguments, actor=os_user())
    if not outcome.accepted:
        print(outcome.sentence)
        return 1
    return _report(StudyRequests(engine), arguments.study, action, wait_s=arguments.wait)


def _ask(actions: StudyActions, action: StudyAction, arguments: argparse.Namespace, *, actor: str) -> ActionOutcome:
    if action is StudyAction.RESEND:
        return actions.resend(arguments.study, arguments.destination, actor)
    asks = {
        StudyAction.RETRY: actions.retry,
        StudyAction.REPLAY: actions.replay,
        StudyAction.FORCE: actions.force,
        StudyAction.FIRST: actions.first,
        StudyAction.CANCEL: actions.cancel,
    }
    return asks[action](arguments.study, actor)


def _report(requests: StudyRequests, study: str, action: StudyAction, *, wait_s: float) -> int:
    """Wait until the worker has answered the newest such request, and print what it said."""
    from dicom_node.study_requests import RequestState

    deadline = time.monotonic() + wait_s
    while True:
        asked = [one for one in requests.of_study(study) if one.action is action][-1]
        if asked.state is not RequestState.OPEN:
            print(asked.answer)
            return 0 if asked.state is RequestState.DONE else 1
        if time.monotonic() > deadline:
            print(f"{action} is asked for, but no worker has seen to it yet; is the node running?")
            return 1
        time.sleep(0.1)
