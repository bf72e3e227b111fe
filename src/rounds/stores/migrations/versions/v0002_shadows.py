"""Answers of versions that look on; how large an image is, and whether it was dropped."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"

_TYPES = {
    "sqlite": {"key": "INTEGER PRIMARY KEY", "blob": "BLOB", "real": "REAL"},
    "postgresql": {"key": "BIGINT PRIMARY KEY", "blob": "BYTEA", "real": "DOUBLE PRECISION"},
}
# The first version looks into `migrations`, and leaves a database alone that names a step it does not know.
_SHADOWS = """
ALTER TABLE captures ADD COLUMN size BIGINT NOT NULL DEFAULT 0;
ALTER TABLE captures ADD COLUMN gone INTEGER NOT NULL DEFAULT 0;
CREATE TABLE shadows (seq {key}, prediction TEXT NOT NULL, version TEXT NOT NULL, bundle TEXT NOT NULL,
    label TEXT NOT NULL, probabilities {blob} NOT NULL, scores {blob} NOT NULL, ms {real} NOT NULL,
    UNIQUE (prediction, bundle));
CREATE INDEX shadows_by_bundle ON shadows (bundle, seq);
INSERT INTO heads (name, value) VALUES ('shadows', 0);
CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY, at TEXT NOT NULL);
INSERT INTO migrations (name, at) VALUES ('0002', '');
"""


def upgrade() -> None:
    """Widen captures and make the table of shadow answers."""
    for statement in _SHADOWS.format(**_TYPES[op.get_bind().dialect.name]).split(";\n"):
        if statement.strip():
            op.execute(statement)
