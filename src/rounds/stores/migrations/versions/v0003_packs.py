"""Where small images lie that share a blob."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"

_PACKS = (
    "CREATE TABLE packed (image TEXT PRIMARY KEY, pack TEXT NOT NULL, at BIGINT NOT NULL, size BIGINT NOT NULL)",
    "CREATE INDEX packed_by_pack ON packed (pack)",
    "CREATE TABLE unsettled (pack TEXT PRIMARY KEY, at BIGINT NOT NULL)",
)


def upgrade() -> None:
    """Make the tables of packs."""
    for statement in _PACKS:
        op.execute(statement)
