"""What pages need of the node, handed to `create_app` in one piece; built in `cli/receiving.py`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine

from dicom_node.accounts.pauses import SignInPauses
from dicom_node.accounts.searches import Searches
from dicom_node.accounts.sessions import Sessions
from dicom_node.accounts.users import Users
from dicom_node.audit import AuditTrail
from dicom_node.delivery.outbox import Outbox
from dicom_node.ledger import Ledger
from dicom_node.retention import StudyKeeping
from dicom_node.reviews import Reviews
from dicom_node.study_actions import StudyActions
from dicom_node.study_cards import StudyCards
from dicom_node.web.configuration_desk import ConfigurationDesk
from dicom_node.web.node_health import NodeHealth
from dicom_node.web.node_numbers import NumberSource


@dataclass(frozen=True, kw_only=True)
class WebParts:
    """The node as the web sees it. A field with a default is a part that a node can do without."""

    engine: Engine
    state_dir: Path
    ledger: Ledger
    outbox: Outbox
    cards: StudyCards
    reviews: Reviews
    searches: Searches
    audit: AuditTrail
    actions: StudyActions
    destinations: tuple[str, ...]
    users: Users
    sessions: Sessions
    pauses: SignInPauses
    health: NodeHealth
    wake: Callable[[], None]
    wake_token: str
    numbers: NumberSource | None = None
    """What `GET /metrics` counts."""
    metrics_token: str = ""
    """Lets somebody from another machine read the metrics; empty: this machine only."""
    dashboard: bool = True
    """False: health and wake-up only, no pages."""
    node_name: str = "Hydrops Node"
    viewer_url: str = ""
    """Where OHIF is served, such as "http://{host}:8081" (`viewer.links.HOST`); empty when there is no viewer."""
    configuration: ConfigurationDesk | None = None
    """Who reads, checks and writes the configuration files; None: there is no page for it."""
    keeping: Callable[[str], StudyKeeping | None] = lambda _study: None
    """How long a study is kept, and what of it is still here; None where nothing is known of that."""
    clock: Callable[[], float] = time.time
