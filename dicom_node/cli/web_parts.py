"""The node's parts as the web gets them. Imported early: its tables have to be declared when the database is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Engine

from dicom_node.accounts.pauses import SignInPauses
from dicom_node.accounts.searches import Searches
from dicom_node.accounts.sessions import SessionLimits, Sessions
from dicom_node.accounts.users import Users
from dicom_node.cli.retaining import periods_of
from dicom_node.cli.viewer_place import viewer_address
from dicom_node.cli.wiring import audit_trail, study_actions
from dicom_node.delivery.outbox import Outbox
from dicom_node.intake.orthanc_feed import OrthancFeed
from dicom_node.ledger import Ledger
from dicom_node.retention import StudyKeepings
from dicom_node.reviews import Reviews
from dicom_node.settings import LoadedSettings
from dicom_node.study_cards import StudyCards
from dicom_node.web.configuration_desk import ConfigurationDesk
from dicom_node.web.parts import WebParts

if TYPE_CHECKING:
    from dicom_node.cli.node_state import NodeState


def web_parts(
    loaded: LoadedSettings,
    engine: Engine,
    *,
    ledger: Ledger,
    outbox: Outbox,
    feed: OrthancFeed | None,
    state: NodeState,
    configuration: ConfigurationDesk | None = None,
) -> WebParts:
    """What `create_app` is built from."""
    web = loaded.settings.web
    return WebParts(
        engine=engine,
        state_dir=loaded.state_dir,
        ledger=ledger,
        outbox=outbox,
        cards=StudyCards(engine),
        reviews=Reviews(engine),
        searches=Searches(engine),
        audit=audit_trail(loaded),
        actions=study_actions(loaded, engine),
        destinations=tuple(one.name for one in loaded.settings.destinations),
        users=Users(engine),
        sessions=Sessions(engine, SessionLimits(idle_s=web.session_idle_s, lifetime_s=web.session_lifetime_s)),
        pauses=SignInPauses(engine),
        health=state,
        wake=feed.wake if feed is not None else lambda: None,
        wake_token=loaded.secrets.get("HYDROPS_WAKE_TOKEN", ""),
        numbers=state,
        metrics_token=loaded.secrets.get("HYDROPS_METRICS_TOKEN", ""),
        dashboard=web.dashboard,
        viewer_url=viewer_address(loaded),
        configuration=configuration,
        keeping=StudyKeepings(engine, periods_of(loaded.settings.retention)).of_study,
        node_name=loaded.settings.results.device_name,
    )
