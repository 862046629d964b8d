"""Sends one test notice through every configured channel, on request only."""

from __future__ import annotations

import time
from collections.abc import Iterator

from dicom_node.cli.doctor.checkup import Line, Site, ok, problem, warning
from dicom_node.cli.messaging import channels_of, digest_options
from dicom_node.notices.channels import NoticeNotSent
from dicom_node.notices.digest import digest
from dicom_node.notices.notice import Notice, NoticeKind


def check(site: Site) -> Iterator[Line]:
    """One line for each channel."""
    channels = channels_of(site.loaded)
    if not channels:
        yield warning("no notices are configured", "set notices.mail_host or notices.webhook_url")
    text = "This is a test by hydrops-node doctor. Whoever reads it will be told of refused studies and dead letters."
    notice = Notice(number=0, kind=NoticeKind.TEST, at=time.time(), text=text)
    message = digest([notice], digest_options(site.loaded, None))
    for channel in channels:
        site.say(channel.name)
        try:
            channel.send(message)
        except NoticeNotSent as error:
            yield problem(
                f"{channel.name}: not sent, {error}", "compare host, port, encryption and password with its server's"
            )
        else:
            yield ok(f"{channel.name}: sent; look whether it arrived")
