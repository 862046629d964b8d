"""Images of an Orthanc that were fetched with their series ahead of their own rows of the change log.

The log's row of such an image is then no news, unless it is younger than what Orthanc had said of the series: then the
image was replaced since, and Orthanc has dropped its first row. Of any other image that the spool has, a row says
that Orthanc has replaced it. Kept in memory: after a restart an image is taken once more than needed, and the spool
knows it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from dicom_node.orthanc_client import Change, OrthancSeries


class ImagesAhead:
    """Which images were fetched ahead of their rows, and which rows were dealt with though their page was not."""

    def __init__(self) -> None:
        self._ahead: dict[str, float | None] = {}
        self._ahead_before: dict[str, float | None] = {}
        self._dealt_with: set[int] = set()

    def add(self, series: OrthancSeries, instance_ids: Iterable[str]) -> None:
        """These of a series, as it was listed, were fetched or passed over: their rows until then say nothing new."""
        self._ahead.update(dict.fromkeys(instance_ids, series.last_update))

    def not_ahead(self, changes: Sequence[Change]) -> dict[str, int]:
        """New images of these rows, with the numbers of the rows, but for those that were fetched ahead of them."""
        return {c.resource_id: c.seq for c in changes if c.kind == "NewInstance" and not self._came_ahead(c)}

    def undone(self, rows: Mapping[str, int]) -> dict[str, int]:
        """Those of these rows that an earlier look, which failed, had not dealt with."""
        return {one: seq for one, seq in rows.items() if seq not in self._dealt_with}

    def had_their_rows(self, rows: Mapping[str, int]) -> None:
        """These rows were looked at; the next ones of the same images mean "replaced"."""
        self._dealt_with.update(seq for one, seq in rows.items() if one in self._ahead)
        for one in rows:
            self._ahead.pop(one, None)

    def page_ended(self) -> None:
        """The cursor has passed all rows so far."""
        self._dealt_with.clear()

    def look_ended(self) -> None:
        """The log was read to its end; rows of what was fetched meanwhile may come until the end of the next look."""
        self._ahead_before, self._ahead = self._ahead, {}

    def clear(self) -> None:
        """It is another database now."""
        self._ahead.clear()
        self._ahead_before.clear()
        self._dealt_with.clear()

    def _came_ahead(self, row: Change) -> bool:
        """Whether its image was taken with its series ahead of this row of the log; true once for each taking.

        The row counts as dealt with then: should this look fail, the next one does not take the image again.
        """
        takings = [
            known.pop(row.resource_id) for known in (self._ahead, self._ahead_before) if row.resource_id in known
        ]
        ahead = any(row.at is None or listed is None or row.at <= listed for listed in takings)
        if ahead:
            self._dealt_with.add(row.seq)
        return ahead
