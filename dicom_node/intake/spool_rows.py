"""The tables of the spool's index: images that are here, images that were erased, series and studies."""

from __future__ import annotations

import sqlalchemy as sa

from dicom_node.database import metadata

instance_table = sa.Table(
    "spool_instance",
    metadata,
    sa.Column("file_name", sa.String(64), primary_key=True),
    sa.Column("sop_instance_uid", sa.String(64), nullable=False, index=True),
    sa.Column("series_instance_uid", sa.String(64), nullable=False, index=True),
    sa.Column("study_instance_uid", sa.String(64), nullable=False, index=True),
    sa.Column("sop_class_uid", sa.String(64), nullable=False),
    sa.Column("transfer_syntax_uid", sa.String(64), nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("received_at", sa.Float, nullable=False),
    sa.Column("conflict", sa.Boolean, nullable=False),
    sa.Index("spool_instance_by_receipt", "received_at"),  # what came lately is found among all that ever came
)
series_table = sa.Table(
    "spool_series",
    metadata,
    sa.Column("series_instance_uid", sa.String(64), primary_key=True),
    sa.Column("expected", sa.Integer, nullable=False),
)
erased_table = sa.Table(
    "spool_erased",
    metadata,
    sa.Column("file_name", sa.String(64), primary_key=True),
    sa.Column("sop_instance_uid", sa.String(64), nullable=False, index=True),
    sa.Column("study_instance_uid", sa.String(64), nullable=False, index=True),
    sa.Column("received_at", sa.Float, nullable=False),
    sa.Column("erased_at", sa.Float, nullable=False),
)
refusal_table = sa.Table(
    "spool_refusal",
    metadata,
    sa.Column("series_instance_uid", sa.String(64), primary_key=True),
    sa.Column("study_instance_uid", sa.String(64), nullable=False, index=True),
    sa.Column("reason", sa.String(64), nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
)
study_table = sa.Table(
    "spool_study",
    metadata,
    sa.Column("study_instance_uid", sa.String(64), primary_key=True),
    sa.Column("revision", sa.Integer, nullable=False),
)
