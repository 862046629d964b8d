"""The viewer: OHIF on an origin of its own, in front of the archive's DICOMweb. Reading only; it never runs a model."""
