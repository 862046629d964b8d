"""Run by tests and bench as a process of its own that can be killed: a listener on a spool.

Prints its port once it listens. With `node.pem` and `node.key` in its folder it speaks TLS.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from dicom_node.database import open_database
from dicom_node.dicom_tls import ListenerTls, ListenerTlsFiles
from dicom_node.intake.listener import AllowedPeer, Listener, ListenerOptions
from dicom_node.intake.spool import Spool


def main(folder: Path) -> None:
    """Sweep the spool in `folder`, then receive until killed."""
    spool = Spool(folder / "spool", open_database(f"sqlite:///{folder / 'node.db'}"))
    spool.sweep()
    scanner = AllowedPeer(ae_title="SCANNER", networks=("127.0.0.0/8",))
    files = ListenerTlsFiles(certificate=folder / "node.pem", key=folder / "node.key")
    tls = ListenerTls(files) if files.certificate.exists() else None
    options = ListenerOptions(ae_title="HYDROPS", port=0, allowed=(scanner,), max_associations=20, tls=tls)
    listener = Listener(options, spool)
    listener.start()
    print(listener.port, flush=True)
    while True:
        time.sleep(60)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
