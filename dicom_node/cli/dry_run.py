"""What a changed configuration would do, in a process of its own: `python -m dicom_node.cli.dry_run`.

Reads a request as JSON from standard input (paths of the files, texts that would replace them) and writes what it found
as JSON (the fields of `web.configuration_desk.Verdict`). Changes nothing.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import pydicom

from dicom_node.assembly.headers import SeriesHeader, group_series, read_series_header
from dicom_node.assembly.pairing import StudyAssembly, assemble
from dicom_node.assembly.site_rules import SeriesRules, read_rules
from dicom_node.cli.check_config import problems_of_named_files
from dicom_node.cli.logs import silence_quotations
from dicom_node.database import open_database
from dicom_node.delivery.outbox import DeliveryState, Outbox
from dicom_node.errors import ConfigError
from dicom_node.intake.spool import Spool, StudyActivity
from dicom_node.settings import AllowedCaller, LoadedSettings, find_problems, read_settings
from dicom_node.settings.effects import changed_keys, effect_of
from dicom_node.web.configuration_desk import (
    ChangedKey,
    ConfigurationProblem,
    PeerPreview,
    SeriesPreview,
    StudyPreview,
    Verdict,
)

STUDIES: Final = 10
"""How many past studies are looked at: the latest; some 300 images each take half a second."""

RULES_KEY: Final = "assembly.rules_file"
UNREADABLE: Final = (pydicom.errors.InvalidDicomError, OSError, ValueError, EOFError, NotImplementedError, LookupError)
"""A kept image whose header pydicom cannot read; the worker passes it over, too."""


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """Settings together with the rules that they name."""

    loaded: LoadedSettings
    rules: SeriesRules
    rules_text: str


def main() -> int:
    """Answer one request."""
    silence_quotations()
    request = json.load(sys.stdin)
    verdict = judge(Path(request["path"]), Path(request["rules_path"]), request["settings"], request["rules"])
    json.dump(asdict(verdict), sys.stdout)
    return 0


def judge(path: Path, rules_path: Path, settings: str, rules: str) -> Verdict:
    """What would come of these texts in place of the files."""
    problems = list(_problems(path, settings, rules))
    if problems:
        return Verdict(problems=tuple(problems))
    new = _configuration(path, settings, rules)
    old, remarks = new, ["The file on disk is not valid, so there is nothing to compare with."]
    on_disk = path.read_text(encoding="utf-8"), rules_path.read_text(encoding="utf-8")
    if not list(_problems(path, *on_disk)):
        old, remarks = _configuration(path, *on_disk), []
    engine = open_database(old.loaded.database_url)
    spool = Spool(old.loaded.state_dir / "spool", engine)
    outbox = Outbox(old.loaded.state_dir / "outbox", engine)
    return Verdict(
        changed=tuple(_changed(old, new)),
        studies=tuple(_studies(spool, old, new)),
        peers=tuple(_peers(spool, old.loaded, new.loaded)),
        remarks=(*remarks, *_remarks(outbox, old.loaded, new.loaded)),
    )


def _problems(path: Path, settings: str, rules: str) -> Iterator[ConfigurationProblem]:
    """Everything that would keep the node from starting with these texts."""
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / path.name
        draft.write_text(settings, encoding="utf-8")
        found = [one.replace(str(draft), str(path)) for one in find_problems(draft, os.environ)]
    yield from (_problem(one) for one in found)
    try:
        read_rules(rules)
    except ConfigError as error:
        yield ConfigurationProblem(key="rules", sentence=str(error))
        return
    if not found:
        loaded = _configuration(path, settings, rules).loaded
        yield from (_problem(one) for one in problems_of_named_files(loaded, os.environ))


def _problem(sentence: str) -> ConfigurationProblem:
    """A sentence of the checks begins with its key."""
    key = sentence.partition(":")[0]
    return ConfigurationProblem(key=key if " " not in key and "/" not in key else "", sentence=sentence)


def _configuration(path: Path, settings: str, rules: str) -> Configuration:
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / path.name
        draft.write_text(settings, encoding="utf-8")
        loaded = replace(read_settings(draft, os.environ), config_dir=path.parent)
    return Configuration(loaded=loaded, rules=read_rules(rules), rules_text=rules)


def _changed(old: Configuration, new: Configuration) -> Iterator[ChangedKey]:
    keys = [*changed_keys(old.loaded.settings, new.loaded.settings)]
    for key in keys:
        yield ChangedKey(key=key, effect=effect_of(key).value)
    if old.rules_text != new.rules_text:
        yield ChangedKey(key="series rules", effect=effect_of(RULES_KEY).value)


def _studies(spool: Spool, old: Configuration, new: Configuration) -> Iterator[StudyPreview]:
    """The latest studies, judged with both."""
    latest = sorted(spool.studies(), key=lambda one: one.last_received_at, reverse=True)
    for activity in latest[:STUDIES]:
        datasets = [one for one in map(_header, _paths(spool, activity.study_instance_uid)) if one is not None]
        headers = [read_series_header(one) for one in group_series(datasets).values()]
        if headers:
            yield _study(activity, headers, _assembled(headers, old), _assembled(headers, new))


def _paths(spool: Spool, study_instance_uid: str) -> Iterator[Path]:
    return (one.path for one in spool.instances(study_instance_uid))


def _header(path: Path) -> pydicom.Dataset | None:
    try:
        return pydicom.dcmread(path, stop_before_pixels=True)
    except UNREADABLE:
        return None


def _assembled(headers: Sequence[SeriesHeader], configuration: Configuration) -> StudyAssembly:
    limits = configuration.loaded.settings.assembly
    return assemble(
        headers,
        configuration.rules,
        max_frames_per_series=limits.max_frames_per_series,
        max_series_per_study=limits.max_series_per_study,
    )


def _study(
    activity: StudyActivity, headers: Sequence[SeriesHeader], old: StudyAssembly, new: StudyAssembly
) -> StudyPreview:
    by_uid = {one.series_instance_uid: one for one in headers}
    before = {one.series_instance_uid: one for one in old.decisions}
    rows = [
        SeriesPreview(
            number=str(by_uid[one.series_instance_uid].series_number or ""),
            description=by_uid[one.series_instance_uid].series_description,
            old_role=before[one.series_instance_uid].role.value,
            new_role=one.role.value,
            old_used=_used(one.series_instance_uid, old),
            new_used=_used(one.series_instance_uid, new),
            reason=one.reason,
        )
        for one in new.decisions
    ]
    return StudyPreview(
        study_instance_uid=activity.study_instance_uid,
        received_at=activity.last_received_at,
        old_outcome=_outcome(old),
        new_outcome=_outcome(new),
        series=tuple(rows),
    )


def _used(series_uid: str, assembly: StudyAssembly) -> bool:
    chosen = assembly.chosen
    return chosen is not None and series_uid in {one.series_instance_uid for one in chosen.series.values()}


def _outcome(assembly: StudyAssembly) -> str:
    if assembly.chosen is not None:
        return "measured from " + " + ".join(role.value for role in assembly.chosen.series)
    return "not measured" if assembly.refusal is None else f"not measured: {assembly.refusal.reason.sentence}"


def _peers(spool: Spool, old: LoadedSettings, new: LoadedSettings) -> Iterator[PeerPreview]:
    """Every listed AE title, before and after, with how many of the kept images it sent."""
    before, after = _networks(old.settings.listener.allowed), _networks(new.settings.listener.allowed)
    sent = spool.images_by_source()
    for title in sorted({*before, *after}):
        yield PeerPreview(
            ae_title=title,
            old_networks=before.get(title, ""),
            new_networks=after.get(title, ""),
            images=sent.get(title, 0),
        )


def _networks(allowed: Sequence[AllowedCaller]) -> dict[str, str]:
    return {one.ae_title: ", ".join(one.networks) for one in allowed}


def _remarks(outbox: Outbox, old: LoadedSettings, new: LoadedSettings) -> Iterator[str]:
    """What a destination leaves behind that is taken off the list."""
    kept = {one.name for one in new.settings.destinations}
    gone = {one.name for one in old.settings.destinations} - kept
    waiting: dict[str, int] = {}
    for one in outbox.backlog():
        if one.state is DeliveryState.WAITING:
            waiting[one.destination] = one.count
    for name in sorted(gone):
        if waiting.get(name):
            yield f"{waiting[name]} objects wait for destination {name}; without it they stay in the outbox."


if __name__ == "__main__":
    sys.exit(main())
