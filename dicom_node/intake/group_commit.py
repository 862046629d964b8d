"""Several threads' work committed at once: while one commit is under way, what comes meanwhile gathers for the next."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(slots=True)
class _Place(Generic[Item, Result]):
    """One caller's item, and what became of it."""

    item: Item
    result: Result | None = None
    problem: BaseException | None = None
    is_done: bool = False


class GroupCommit(Generic[Item, Result]):
    """Turns many small commits into fewer; a caller alone is served at once, nobody waits for others to come.

    Parameters
    ----------
    commit
        Makes all items durable and gives a result for each, in their order. What it raises, every caller of this group
        gets: then nothing is promised to any of them.
    """

    def __init__(self, commit: Callable[[Sequence[Item]], Sequence[Result]]) -> None:
        self._commit = commit
        self._gathering = threading.Lock()
        self._waiting: list[_Place[Item, Result]] = []
        self._turn = threading.Lock()

    def __call__(self, item: Item) -> Result:
        """The result of one item, once it is durable."""
        place: _Place[Item, Result] = _Place(item)
        with self._gathering:
            self._waiting.append(place)
        with self._turn:  # whoever comes first commits for all who wait; they find it done when their turn comes
            if not place.is_done:
                self._commit_all()
        if place.problem is not None:
            raise place.problem
        return place.result  # type: ignore[return-value]  # set whenever there is no problem

    def _commit_all(self) -> None:
        with self._gathering:
            group, self._waiting = self._waiting, []
        try:
            results = self._commit([place.item for place in group])
            ended = list(zip(group, results, strict=True))
        except BaseException as problem:
            for place in group:  # an interrupt too: whoever is in this group and hears nothing of it would be promised
                place.problem, place.is_done = problem, True
            raise
        for place, result in ended:
            place.result, place.is_done = result, True
