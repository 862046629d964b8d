"""Twin of route_to_node.lua for sites that use Orthanc's Python plugin: standard library and `orthanc` only.

Tells the Hydrops Node that an MR series has begun to arrive in this Orthanc, and that it has come to rest. A hint,
nothing more: the node reads Orthanc's own list of changes, so a lost call costs seconds, never a study. Enable either
twin, never both.

Settings, in Orthanc's configuration (see README.md beside this file):
    "HydropsNode": {"WakeUrl": "http://127.0.0.1:8080/wake/orthanc", "WakeToken": "${HYDROPS_WAKE_TOKEN:-}"}
"""

import contextlib
import http.client
import json
import queue
import threading
from urllib.parse import urlsplit

import orthanc

DEFAULT_URL = "http://127.0.0.1:8080/wake/orthanc"
TIMEOUT_S = 1.0
WAITING_CALLS = 64  # more than that are dropped: one call makes the node look at everything


def read_settings(configuration):
    """URL and token of the node from Orthanc's configuration, given as JSON text."""
    section = json.loads(configuration).get("HydropsNode", {})
    return section.get("WakeUrl") or DEFAULT_URL, section.get("WakeToken", "")


def is_input(series):
    """Whether a series, as /series/{id} shows it, may be input. Results are SEG and SR: MR never wakes for our own."""
    return series.get("MainDicomTags", {}).get("Modality") == "MR"


def wake_body(event, series_id):
    """What the node is told. Nothing about the patient leaves here."""
    return json.dumps({"event": event, "series": series_id}).encode()


class NodeCaller:
    """Calls the node from a thread of its own, so that nobody in Orthanc waits for the network."""

    def __init__(self, url, token, log):
        self._address = urlsplit(url)
        self._headers = {"Content-Type": "application/json", "X-Hydrops-Token": token}
        self._log = log
        self._answers = True
        self._waiting = queue.Queue(WAITING_CALLS)
        self._thread = threading.Thread(target=self._run, name="hydrops-wake", daemon=True)
        self._thread.start()

    def wake(self, event, series_id):
        """Ask for a call; returns at once, whatever the node does."""
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(wake_body(event, series_id))

    def close(self):
        """End the thread after the call in progress; what waits is forgotten."""
        while not self._waiting.empty():
            self._waiting.get_nowait()
        self._waiting.put(None)
        self._thread.join(2 * TIMEOUT_S)

    def _run(self):
        while (body := self._waiting.get()) is not None:
            answers = self._call(body)
            if answers != self._answers:  # once per change, not once per series
                self._log(f"Hydrops Node {'answers again' if answers else 'does not answer'} at {self._address.netloc}")
            self._answers = answers

    def _call(self, body):
        secure = self._address.scheme == "https"
        connect = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = connect(self._address.hostname, self._address.port, timeout=TIMEOUT_S)
        try:
            connection.request("POST", self._address.path or "/", body, self._headers)
            return connection.getresponse().status < 300
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def register(api):
    """Connects to Orthanc, whose plugin interface is `api`."""
    caller = NodeCaller(*read_settings(api.GetConfiguration()), api.LogWarning)
    events = {api.ChangeType.NEW_SERIES: "NewSeries", api.ChangeType.STABLE_SERIES: "StableSeries"}

    def on_change(change, _level, resource_id):
        if change in events:
            if is_input(json.loads(api.RestApiGet(f"/series/{resource_id}"))):
                caller.wake(events[change], resource_id)
        elif change == api.ChangeType.ORTHANC_STOPPED:
            caller.close()

    api.RegisterOnChangeCallback(on_change)


register(orthanc)
