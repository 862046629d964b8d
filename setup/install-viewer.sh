#!/usr/bin/env bash
# Fetches the OHIF viewer (50 MB, pinned and checked) into .venv. Without it the node runs all the same, only without
# its viewer; so a machine that reaches no package registry gets advice here, not an error.
#
#   setup/install-viewer.sh
set -euo pipefail

cd "$(dirname "$0")/.."
if ! .venv/bin/hydrops-node install-viewer; then
    echo "setup: going on without the viewer; the node runs, and 'make setup' tries again"
fi
