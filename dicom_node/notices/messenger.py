"""The thread that looks and tells: at most one message per channel and interval, whatever happens."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from dicom_node.database import DATABASE_AWAY
from dicom_node.notices.channels import Channel, NoticeNotSent
from dicom_node.notices.digest import DigestOptions, digest
from dicom_node.notices.notice_book import NoticeBook
from dicom_node.notices.watch import Watch

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 5.0
GATHER_S: Final = 10.0
"""The first notice after a quiet time waits this long for others of the same trouble."""

FIRST_RETRY_S: Final = 60.0
MAX_RETRY_S: Final = 3600.0
KEEP_S: Final = 90 * 86400.0
"""How long notices that were sent stay in the database."""


@dataclass(frozen=True, kw_only=True)
class MessengerOptions:
    """`every_s`: least time between two messages of one channel; what happens meanwhile is told together."""

    every_s: float
    digest: DigestOptions


class Messenger(threading.Thread):
    """Runs beside receiving; a mail server that hangs holds up this thread and nothing else."""

    def __init__(
        self,
        book: NoticeBook,
        watch: Watch,
        channels: Sequence[Channel],
        *,
        options: MessengerOptions,
        clock: Callable[[], float],
        stop: threading.Event,
    ) -> None:
        super().__init__(name="Messenger", daemon=True)
        self._book = book
        self._watch = watch
        self._channels = tuple(channels)
        self._options = options
        self._clock = clock
        self._stop_asked = stop

    def run(self) -> None:
        """Look and tell until told to stop."""
        while not self._stop_asked.is_set():
            try:
                self.once()
            except DATABASE_AWAY as error:  # nothing is lost by waiting
                log.warning("event=notices_paused error=%s", type(error).__name__)
            except Exception:  # this thread's only net; without it nobody would be told of anything any more
                log.exception("event=notices_failed")
                self._stop_asked.wait(FIRST_RETRY_S)
            self._stop_asked.wait(LOOK_EVERY_S)

    def once(self) -> None:
        """Write down what is new, and send what is due."""
        now = self._clock()
        for channel in self._channels:
            self._book.open_channel(channel.name)  # before looking, so that what is found now counts for it
        self._watch.look(now)
        for channel in self._channels:
            self._tell(channel, now)
        self._book.close_channels(but=[channel.name for channel in self._channels])
        self._book.forget_before(now - KEEP_S)

    def _tell(self, channel: Channel, now: float) -> None:
        mark = self._book.open_channel(channel.name)
        notices = self._book.waiting(mark)
        # Farther ahead than any pause, or written in the future: the clock was set back since.
        longest_s = max(MAX_RETRY_S, self._options.every_s)
        if not notices or now < mark.next_try_at <= now + longest_s:
            return
        under_way = mark.sending_up_to > mark.sent_up_to
        if not under_way and 0.0 <= now - notices[0].at < GATHER_S:
            return
        self._book.sending(channel.name, notices)
        try:
            channel.send(digest(notices, self._options.digest))
        except NoticeNotSent as error:
            failures = mark.failures + 1
            pause_s = min(FIRST_RETRY_S * 2.0 ** min(failures - 1, 30), MAX_RETRY_S)
            self._book.not_sent(channel.name, failures=failures, next_try_at=now + pause_s)
            log.warning(
                'event=notice_not_sent channel=%s notices=%d again_in_s=%.0f reason="%s"',
                channel.name,
                len(notices),
                pause_s,
                error,
            )
        else:
            self._book.sent(channel.name, notices, next_try_at=now + self._options.every_s)
            log.info("event=notice_sent channel=%s notices=%d", channel.name, len(notices))
