"""`python -m dicom_node.cli`: the same as `hydrops-node`, for places where scripts are not on the path."""

import sys

from dicom_node.cli import main

sys.exit(main())
