"""The receiving side of the node: C-STORE SCP, Orthanc feed, health and wake-up; no torch, no SimpleITK."""

from __future__ import annotations

import logging
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from dicom_node.accounts.users import Users
from dicom_node.cli.configuration_files import ConfigurationFiles
from dicom_node.cli.delivering import report_desk
from dicom_node.cli.exposure import check_exposure
from dicom_node.cli.lasting_objects import keep_out_of_collections
from dicom_node.cli.live_configuration import LiveConfiguration
from dicom_node.cli.messaging import make_messenger
from dicom_node.cli.node_audit import RejectionAuditor
from dicom_node.cli.state_folder import prepare
from dicom_node.cli.taken_ports import taken_port
from dicom_node.cli.tls_files import allowed_peer, listener_tls, web_tls
from dicom_node.cli.viewer_place import why_no_viewer
from dicom_node.cli.web_parts import web_parts
from dicom_node.cli.wiring import audit_trail
from dicom_node.database import open_database, require_whole
from dicom_node.delivery.outbox import Outbox
from dicom_node.errors import ConfigError
from dicom_node.intake.listener import TRANSFER_SYNTAXES, Listener, ListenerOptions
from dicom_node.intake.orthanc_feed import FeedOptions, OrthancFeed
from dicom_node.intake.spool import Spool
from dicom_node.ledger import Ledger
from dicom_node.orthanc_client import OrthancClient
from dicom_node.settings import LoadedSettings
from dicom_node.settings.effects import Effect

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from dicom_node.cli.node_state import NodeState
    from dicom_node.cli.retaining import RetentionKeeper
    from dicom_node.cli.serving_thread import ServingThread
    from dicom_node.cli.web_server import WebServer
    from dicom_node.notices.messenger import Messenger
    from dicom_node.web.parts import WebParts

log = logging.getLogger(__name__)

DRAIN_S: Final = 30.0
"""How long live associations may go on after a stop was asked for."""

LAST_S: Final = 2.0
"""How long each of the others is waited for when the associations took all that time.

A page, a message or a round of erasing that is cut off then is asked for, sent or gone on with anew; waiting the whole
time for each would add up beyond the 90 s after which systemd kills.
"""

FEED_PAUSE_S: Final = 30.0
"""After a fault of ours in the Orthanc feed: long enough not to fill the log, short against a study's way."""


def open_spool(loaded: LoadedSettings, engine: Engine) -> Spool:
    """The spool of this node."""
    return Spool(loaded.state_dir / "spool", engine, min_free_bytes=loaded.settings.listener.min_free_bytes)


class Receiving:
    """Everything that receives, as a context: started inside, drained and stopped at its end."""

    def __init__(self, loaded: LoadedSettings, config: Path | None = None) -> None:
        self._loaded = loaded
        self._live = None if config is None else LiveConfiguration(config, loaded, self._take_over)
        self._folder = prepare(loaded.state_dir)
        self._engine = open_database(loaded.database_url)
        require_whole(self._engine)
        self._spool = open_spool(loaded, self._engine)
        self._ledger = Ledger(self._engine)
        self._outbox = Outbox(loaded.state_dir / "outbox", self._engine)
        check_exposure(loaded, users=Users(self._engine).count())
        web_tls(loaded)  # the web starts after the listener: by then a sender would have been answered
        self._stop = threading.Event()
        self._listener = self._make_listener()
        self._feed = self._make_feed()
        self._feed_thread: threading.Thread | None = None
        self._web: WebServer | None = None
        self._viewer: ServingThread | None = None
        self._state: NodeState | None = None
        self._messenger: Messenger | None = None
        self._keeper: RetentionKeeper | None = None

    def __enter__(self) -> Self:
        web, viewer = self._loaded.settings.web, self._loaded.settings.viewer
        web_socket = taken_port(web.host, web.port, key="web.port")
        viewer_socket = None
        if not why_no_viewer(self._loaded):
            viewer_socket = taken_port(viewer.host, viewer.port, key="viewer.port")
        self._spool.sweep()
        if self._listener is not None:
            self._start_listener(self._listener)
        if self._feed is not None:
            self._feed_thread = threading.Thread(target=run_feed, args=(self._feed, self._stop), name="OrthancFeed")
            self._feed_thread.start()
        self._start_web(web_socket, viewer_socket)
        if self._live is not None:
            threading.Thread(target=self._live.watch, args=(self._stop,), name="Configuration", daemon=True).start()
        keep_out_of_collections()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        deadline = time.monotonic() + DRAIN_S
        self._stop.set()
        if self._feed is not None:
            self._feed.wake()
        if self._listener is not None:
            self._listener.stop(DRAIN_S)
        for server in (self._web, self._viewer):
            if server is not None:
                server.stop(max(LAST_S, deadline - time.monotonic()))
        for thread in (self._feed_thread, self._keeper):
            if thread is not None:
                thread.join(max(LAST_S, deadline - time.monotonic()))
        if self._messenger is not None:
            self._messenger.join(LAST_S)  # a mail server may hang; what it has not confirmed goes again
        self._engine.dispose()

    @property
    def engine(self) -> Engine:
        """The state database, for who watches the worker beside it."""
        return self._engine

    def _take_over(self, loaded: LoadedSettings, effects: frozenset[Effect]) -> None:
        """Let a changed configuration take effect as far as it can without a restart."""
        parts = None if self._web is None else self._web_parts(self._as_shown(loaded))
        if Effect.AT_ONCE in effects and self._listener is not None:
            self._listener.admit(tuple(allowed_peer(one) for one in loaded.settings.listener.allowed))
        if Effect.AT_ONCE in effects and self._keeper is not None:
            self._keeper.keep(loaded.settings.retention)
        if Effect.WORKER in effects and self._feed is not None:
            self._feed.rest_after(loaded.settings.assembly.quiet_s)
        if self._web is not None and parts is not None:
            self._web.replace(parts)

    def _as_shown(self, loaded: LoadedSettings) -> LoadedSettings:
        """What the pages go by until a restart: what the node was started with, but for what the worker takes over.

        Whether pages may be shown where the web listens, to whom, and from which folder was judged at the start.
        """
        changed = {name: getattr(loaded.settings, name) for name in ("results", "destinations", "retention")}
        return replace(self._loaded, settings=replace(self._loaded.settings, **changed))

    def _make_listener(self) -> Listener | None:
        settings = self._loaded.settings.listener
        if not settings.enabled:
            return None
        options = ListenerOptions(
            ae_title=self._loaded.settings.node.ae_title,
            host=settings.host,
            port=settings.port,
            allowed=tuple(allowed_peer(one) for one in settings.allowed),
            max_associations=settings.max_associations,
            max_associations_per_ae=settings.max_associations_per_ae,
            max_pdu_bytes=settings.max_pdu_bytes,
            max_instance_bytes=settings.max_instance_bytes,
            acse_timeout_s=settings.acse_timeout_s,
            dimse_timeout_s=settings.dimse_timeout_s,
            network_timeout_s=settings.network_timeout_s,
            tls=listener_tls(self._loaded),
        )
        return Listener(
            options,
            self._spool,
            on_rejected=RejectionAuditor(audit_trail(self._loaded)),
            on_report=report_desk(self._loaded, self._engine).answer,
        )

    def _start_listener(self, listener: Listener) -> None:
        settings = self._loaded.settings.listener
        if not settings.allowed:
            log.warning("event=nobody_may_send hint=add a [[listener.allowed]] entry for each sending AE")
        try:
            listener.start()
        except OSError as error:
            raise ConfigError(
                f"listener.port: cannot listen on {settings.host}:{settings.port}: {error.strerror}; "
                "is another node running, or another listener.host needed?"
            ) from None

    def _make_feed(self) -> OrthancFeed | None:
        settings = self._loaded.settings.orthanc
        if not settings.url:
            return None
        options = FeedOptions(
            poll_interval_s=settings.poll_interval_s,
            reconcile_interval_s=settings.reconcile_interval_s,
            reconcile_window_h=settings.reconcile_window_h,
            max_instance_bytes=self._loaded.settings.listener.max_instance_bytes,
            transfer_syntaxes=frozenset(TRANSFER_SYNTAXES),
            quiet_s=self._loaded.settings.assembly.quiet_s,
        )
        client = OrthancClient(
            settings.url,
            username=settings.username,
            password=self._loaded.secrets.get("HYDROPS_ORTHANC_PASSWORD", ""),
            timeout_s=settings.timeout_s,
            parallel=options.parallel,
        )
        return OrthancFeed(client, self._spool, self._engine, options=options)

    def _start_web(self, web_socket: socket.socket, viewer_socket: socket.socket | None) -> None:
        # Imported here: the web's 0.2 s are not to delay the first C-ECHO.
        from dicom_node.cli.node_state import NodeState
        from dicom_node.cli.retaining import make_keeper
        from dicom_node.cli.viewer_server import make_viewer
        from dicom_node.cli.web_server import WebServer

        self._keeper = make_keeper(self._loaded, self._engine, spool=self._spool, outbox=self._outbox, stop=self._stop)
        self._state = NodeState(
            self._loaded,
            self._engine,
            spool=self._spool,
            ledger=self._ledger,
            outbox=self._outbox,
            listener=self._listener,
            feed=self._feed,
            configuration=self._live,
            keeper=self._keeper,
        )
        self._web = WebServer(self._loaded, self._web_parts(self._loaded))
        self._web.start(web_socket)
        self._viewer = make_viewer(self._loaded, self._engine)
        if self._viewer is not None and viewer_socket is not None:
            self._viewer.start(viewer_socket)
        self._messenger = make_messenger(
            self._loaded, self._engine, ledger=self._ledger, outbox=self._outbox, health=self._state, stop=self._stop
        )
        if self._messenger is not None:
            self._messenger.start()
        self._keeper.start()

    def _web_parts(self, loaded: LoadedSettings) -> WebParts:
        assert self._state is not None, "the web is asked for after the node's state is made"
        return web_parts(
            loaded,
            self._engine,
            ledger=self._ledger,
            outbox=self._outbox,
            feed=self._feed,
            state=self._state,
            configuration=None if self._live is None else ConfigurationFiles(self._live, audit_trail(loaded)),
        )


def run_feed(feed: OrthancFeed, stop: threading.Event, *, pause_s: float = FEED_PAUSE_S) -> None:
    """Keep the feed running until `stop`: a fault of ours is told and the log read on from its stored cursor."""
    while not stop.is_set():
        try:
            feed.run(stop)
        except Exception as error:  # this thread's only net; without it the node would look alive and take nothing
            feed.fail(error)
            log.exception("event=orthanc_feed_failed again_in_s=%.0f", pause_s)
            stop.wait(pause_s)
