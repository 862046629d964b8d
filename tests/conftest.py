"""What holds for all tests: generated examples are judged by what comes of them, never by how fast a machine is.

And programs are the system's: pynetdicom installs an `echoscu` and a `storescu` of its own beside Python, which an
activated virtual environment would put before DCMTK's.
"""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import HealthCheck, settings

settings.register_profile("any machine", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

os.environ["PATH"] = os.pathsep.join(
    place for place in os.environ.get("PATH", "").split(os.pathsep) if not (Path(place).parent / "pyvenv.cfg").is_file()
)
