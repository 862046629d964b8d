"""The shell around the core: DICOM, disk, database and network. Research use only."""

__version__ = "0.1.0"
