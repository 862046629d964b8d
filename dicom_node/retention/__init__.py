"""What is erased when: images soon after their results arrived, everything else of a study years later, or by command.

Nothing is erased that is the only copy of anything somebody still waits for; what that means is `keeping`. How an
erasure survives a kill at any point is said in `dicom_node.removals`.
"""

from dicom_node.retention.eraser import Eraser
from dicom_node.retention.inventory import Inventory, StudyInventory
from dicom_node.retention.keeping import StudyKeeping, StudyKeepings, keeping_of
from dicom_node.retention.periods import Periods
from dicom_node.retention.rounds import Erased, RetentionRounds

__all__ = [
    "Erased",
    "Eraser",
    "Inventory",
    "Periods",
    "RetentionRounds",
    "StudyInventory",
    "StudyKeeping",
    "StudyKeepings",
    "keeping_of",
]
