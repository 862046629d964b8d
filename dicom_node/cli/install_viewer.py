"""Install the OHIF viewer that the node serves: fetched once, checked against its pinned digest, kept with the program.

  hydrops-node install-viewer                        by npm, or over HTTPS where there is no npm
  hydrops-node install-viewer --package app.tgz      from a file that was brought here

The registry is npm's own setting, or NPM_CONFIG_REGISTRY. The node works without viewer too.

Exit status: 0 installed, 2 it could not be.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `install-viewer`."""
    parser.add_argument("--package", type=Path, metavar="FILE", help="the package as a file, instead of a download")
    parser.add_argument("--force", action="store_true", help="also where it is installed already")


def run(arguments: argparse.Namespace) -> int:
    """Install; 0 when the viewer is there."""
    from dicom_node.errors import ConfigError
    from dicom_node.web.viewer.installation import PINNED, fetch, install, is_installed, viewer_folder

    folder = viewer_folder()
    name = f"OHIF {PINNED.version}"
    if is_installed(folder) and not arguments.force:
        print(f"{name} is there: {folder}")
        return 0
    if arguments.package is not None and not arguments.package.is_file():
        raise ConfigError(f"{arguments.package}: no such file; pass the package {PINNED.archive_name}")
    with tempfile.TemporaryDirectory(prefix="ohif-") as temporary:
        if arguments.package is None:
            print(f"fetching {name} (50 MB)", file=sys.stderr)
        archive = arguments.package or fetch(Path(temporary), os.environ)
        count = install(archive, folder)
    print(f"{name} installed: {count} files in {folder}")
    return 0
