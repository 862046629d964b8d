"""Who runs a command, for the audit trail."""

from __future__ import annotations

import os
import pwd


def os_user() -> str:
    """The name of the operating system's user; behind `sudo`, of the person who called it."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user without an entry
        name = f"uid {os.getuid()}"
    caller = os.environ.get("SUDO_USER", "")
    return f"{caller} as {name}" if caller and os.getuid() == 0 else name
