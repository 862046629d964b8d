"""Many studies at a time: folders of DICOM or NIfTI files in, result folders and one table out."""
