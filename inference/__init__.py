"""The core: arrays in patient space. No DICOM, no network, no database, no environment."""
