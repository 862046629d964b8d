"""Reads each series once: while the others still come, not when the last image of the study is there."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pydicom import Dataset

from dicom_node.assembly.headers import SeriesHeader, read_series_header

SERIES_KEPT: Final = 64
"""Some sixteen studies'."""

IMAGES_KEPT: Final = 8192
"""As many as the examiner keeps headers of, some 20 studies': what is remembered here it cannot let go."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Series:
    """A series as it was seen last; `header` once it was read."""

    datasets: Sequence[Dataset]
    header: SeriesHeader | None


class SeriesReader:
    """`read_series_header` with a memory; the same data sets, the very same objects, are read once.

    Safe with several threads.
    """

    def __init__(self) -> None:
        self._seen: OrderedDict[str, _Series] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, datasets: Sequence[Dataset]) -> SeriesHeader:
        """The header of one series, as `read_series_header`."""
        known = self._known(datasets)
        if known is not None and known.header is not None:
            return known.header
        header = read_series_header(datasets)
        self._remember(datasets, header)
        return header

    def read_if_still(self, datasets: Sequence[Dataset]) -> None:
        """Read a series to which nothing has come since the last call; one that grows would be read for nothing."""
        if self._known(datasets) is not None:
            self.read(datasets)
        else:
            self._remember(datasets, None)

    def forget(self, study_instance_uid: str) -> None:
        """Let go of the series of one study."""
        with self._lock:
            for uid in [uid for uid, one in self._seen.items() if _study(one.datasets) == study_instance_uid]:
                del self._seen[uid]

    def _known(self, datasets: Sequence[Dataset]) -> _Series | None:
        """What was seen of exactly these data sets."""
        with self._lock:
            seen = self._seen.get(_uid(datasets))
        if seen is None or len(seen.datasets) != len(datasets):
            return None
        return seen if all(one is other for one, other in zip(seen.datasets, datasets, strict=True)) else None

    def _remember(self, datasets: Sequence[Dataset], header: SeriesHeader | None) -> None:
        with self._lock:
            self._seen[_uid(datasets)] = _Series(datasets=tuple(datasets), header=header)
            self._seen.move_to_end(_uid(datasets))
            while len(self._seen) > 1 and self._is_too_much():
                self._seen.popitem(last=False)

    def _is_too_much(self) -> bool:
        return len(self._seen) > SERIES_KEPT or sum(len(one.datasets) for one in self._seen.values()) > IMAGES_KEPT


def _study(datasets: Sequence[Dataset]) -> str:
    return str(datasets[0].get("StudyInstanceUID", ""))


def _uid(datasets: Sequence[Dataset]) -> str:
    return str(datasets[0].get("SeriesInstanceUID", ""))
