"""The shell around the core: DICOM, disk, database and network. Research use only."""

__version__ = "0.1.0"

RESEARCH_USE = "Research use only. Not for diagnostic use."
"""Stands below every number that a command prints."""

IMPLEMENTATION_CLASS_UID = "2.25.137650498317563823413947286241364153"
"""Who we are on an association and in the meta information of the files we write (PS3.7 D.3.3.2). Never changed."""

IMPLEMENTATION_VERSION_NAME = "HYDROPS_NODE"
