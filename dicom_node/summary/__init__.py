"""The summary page: both ears on one picture, for every PACS that shows neither SEG nor SR. Figures only, no DICOM."""
