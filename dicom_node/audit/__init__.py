"""The audit trail: who did what to which study, kept as PS3.15 A.5 says it, in a chain that shows what was changed."""

from dicom_node.audit.entry import AuditEntry
from dicom_node.audit.events import AuditAction, AuditEvent, AuditOutcome
from dicom_node.audit.trail import AuditProblem, AuditTrail

__all__ = ["AuditAction", "AuditEntry", "AuditEvent", "AuditOutcome", "AuditProblem", "AuditTrail"]
