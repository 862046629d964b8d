"""Ask a DICOM application whether it is there and lets us in (C-ECHO).

  hydrops-node echo ORTHANC@127.0.0.1:4242

Exit status: 0 it answers, 1 it does not (the reason and what to do are printed), 2 the address is not usable.
"""

from __future__ import annotations

import argparse

from dicom_node.cli.peer_address import EXAMPLE, add_calling_ae, peer_address


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `hydrops-node echo`."""
    parser.add_argument("peer", type=peer_address, metavar="AE@host:port", help=f"for example {EXAMPLE}")
    add_calling_ae(parser)


def run(arguments: argparse.Namespace) -> int:
    """Send one C-ECHO and say in words what came back."""
    import logging

    from dicom_node.delivery.outcome import Destination, OutcomeKind
    from dicom_node.delivery.store_scu import echo

    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # we say it ourselves, in words
    peer = arguments.peer
    outcome = echo(
        Destination(
            name=peer.ae_title,
            kind="dicom",
            host=peer.host,
            port=peer.port,
            called_ae=peer.ae_title,
            calling_ae=arguments.calling,
            timeout_s=arguments.timeout,
        )
    )
    print(outcome.detail)
    return 0 if outcome.kind is OutcomeKind.DELIVERED else 1
