"""What the spool still knows of images that were erased: that they were here, and with which content.

An erased image leaves its name, which is a digest of its content. So the same image, sent again, is the same image and
nothing new; and another content under its UID is still found out, marked and refused, as if the first were still here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from dicom_node.intake.spool_rows import erased_table, instance_table, series_table
from dicom_node.removals import removal_rows

_of_study: sa.BindParameter[str] = sa.bindparam("study")
_of_study_here = instance_table.c.study_instance_uid == _of_study
_IMAGES = sa.select(instance_table.c.file_name, instance_table.c.sop_instance_uid, instance_table.c.received_at).where(
    _of_study_here
)
_NAMES = sa.select(instance_table.c.file_name).where(_of_study_here)
_is_back = sa.exists().where(instance_table.c.file_name == erased_table.c.file_name)
_was_here = sa.exists().where(erased_table.c.file_name == instance_table.c.file_name)
_KNOWN = sa.select(
    sa.func.count(),
    sa.func.max(erased_table.c.erased_at),
    sa.func.max(erased_table.c.received_at),
    sa.func.coalesce(sa.func.sum(sa.case((_is_back, 0), else_=1)), 0),
).where(erased_table.c.study_instance_uid == _of_study)
_HERE = sa.select(
    sa.func.coalesce(sa.func.sum(sa.case((_was_here, 0), else_=1)), 0),
    sa.func.coalesce(sa.func.sum(sa.case((instance_table.c.conflict, 1), else_=0)), 0),
).where(_of_study_here)


@dataclass(frozen=True, kw_only=True)
class ErasedImages:
    """What is known of a study from which images were erased.

    `erased_at` (POSIX seconds) is the last time, `received_at` when one of the erased images had come last. `known`
    counts the images that were ever erased, `missing` those of them that did not come again, `fresh` the images that
    are here and never were before. `conflict`: an image is here whose UID had, or has, another content.
    """

    erased_at: float
    received_at: float
    known: int
    missing: int
    fresh: int
    conflict: bool

    @property
    def nothing_to_decide(self) -> bool:
        """Whether what is here cannot change what was decided about the study.

        Either nothing is here that was not known when it was decided, or new images came while others are gone: then
        only the whole study, sent again, can be looked at.
        """
        return not self.conflict and (self.missing > 0 or self.fresh == 0)

    @property
    def sentence(self) -> str:
        """For whoever wants the study examined again: what is missing and what to do; "" if nothing is."""
        if not self.missing:
            return ""
        day = datetime.fromtimestamp(self.erased_at).astimezone().date().isoformat()
        part = "its images were" if self.missing == self.known else f"{self.missing} of its {self.known} images were"
        return f"{part} erased here on {day}; send the whole study again, then ask again"

    @property
    def unseen(self) -> int:
        """Images that nobody has looked at, because others of the study are gone."""
        return self.fresh if self.missing else 0


def erased_images(connection: sa.Connection, study_instance_uid: str) -> ErasedImages | None:
    """What was erased of a study; None if nothing was."""
    of_study = {"study": study_instance_uid}
    known, erased_at, received_at, missing = connection.execute(_KNOWN, of_study).one()
    if not known:
        return None
    fresh, conflicts = connection.execute(_HERE, of_study).one()
    return ErasedImages(
        erased_at=float(erased_at),
        received_at=float(received_at),
        known=known,
        missing=missing,
        fresh=fresh,
        conflict=bool(conflicts),
    )


class ErasedImageIndex:
    """What was erased, for whoever has the state database and no spool."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def of_study(self, study_instance_uid: str) -> ErasedImages | None:
        """What was erased of a study; None if nothing was."""
        with self._engine.connect() as connection:
            return erased_images(connection, study_instance_uid)


def take_out(connection: sa.Connection, study_instance_uid: str, *, at: float) -> list[str]:
    """Take every image of a study out of the index, and remember that it was here; the names of their files.

    How many images a series was said to have goes too: whoever sends the study again says it again.
    """
    here = connection.execute(_IMAGES, {"study": study_instance_uid}).all()
    connection.execute(erased_table.delete().where(erased_table.c.file_name.in_(_NAMES)), {"study": study_instance_uid})
    if here:
        rows = [{**row._mapping, "study_instance_uid": study_instance_uid, "erased_at": at} for row in here]
        connection.execute(erased_table.insert(), rows)
    series = sa.select(instance_table.c.series_instance_uid).where(_of_study_here)
    connection.execute(
        series_table.delete().where(series_table.c.series_instance_uid.in_(series)), {"study": study_instance_uid}
    )
    connection.execute(instance_table.delete().where(_of_study_here), {"study": study_instance_uid})
    return [row.file_name for row in here]


def leftovers(connection: sa.Connection, files: Mapping[str, int]) -> set[str]:
    """Of files without a row: those that an erasure did not get to, or that a power cut brought back.

    `files` has the time of the last change (ns) by name. One that was touched since it was listed to be removed is no
    leftover: it was sent again, and acknowledged, while its row was still there.
    """
    ordered = sorted(files)
    listed = removal_rows.c.known_as
    found: set[str] = set()
    touched: set[str] = set()
    for some in [ordered[n : n + 500] for n in range(0, len(ordered), 500)]:
        found.update(connection.scalars(sa.select(erased_table.c.file_name).where(erased_table.c.file_name.in_(some))))
        query = sa.select(listed, removal_rows.c.modified_ns).where(listed.in_(some))
        for name, modified_ns in connection.execute(query):
            (found if modified_ns == files[name] else touched).add(name)
    return found - touched
