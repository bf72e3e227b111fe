"""The tables as they are now; what makes them, step by step, are the numbered files in `migrations/versions`."""

from __future__ import annotations

import sqlalchemy as sa

_meta = sa.MetaData()

events = sa.Table(
    "events",
    _meta,
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    *(sa.Column(name, sa.Text) for name in ("id", "at", "kind", "who", "why", "evidence", "prev", "hash")),
)
captures = sa.Table(
    "captures",
    _meta,
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("prediction", sa.Text),
    sa.Column("at", sa.BigInteger),
    *(sa.Column(name, sa.Text) for name in ("bundle", "version", "image", "label")),
    *(sa.Column(name, sa.LargeBinary) for name in ("probabilities", "logits", "scores")),
    sa.Column("audited", sa.Integer),
    sa.Column("ms", sa.Double),
    sa.Column("reference", sa.Text),
    sa.Column("subject", sa.Text),
    sa.Column("size", sa.BigInteger),
    sa.Column("gone", sa.Integer),
)
shadows = sa.Table(
    "shadows",
    _meta,
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    *(sa.Column(name, sa.Text) for name in ("prediction", "version", "bundle", "label")),
    *(sa.Column(name, sa.LargeBinary) for name in ("probabilities", "scores")),
    sa.Column("ms", sa.Double),
)
labels = sa.Table(
    "labels",
    _meta,
    sa.Column("prediction", sa.Text, primary_key=True),
    *(sa.Column(name, sa.Text) for name in ("label", "reference", "given_by")),
    sa.Column("at", sa.BigInteger),
)
heads = sa.Table("heads", _meta, sa.Column("name", sa.Text, primary_key=True), sa.Column("value", sa.BigInteger))
snapshots = sa.Table(
    "snapshots",
    _meta,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("number", sa.BigInteger),
    sa.Column("data", sa.LargeBinary),
)
costs = sa.Table(
    "costs",
    _meta,
    sa.Column("id", sa.BigInteger, primary_key=True),
    *(sa.Column(name, sa.Text) for name in ("kind", "subject")),
    sa.Column("at", sa.BigInteger),
    *(sa.Column(name, sa.Double) for name in ("seconds", "cpu_seconds")),
    sa.Column("bytes", sa.BigInteger),
)
# Where a small image lies in its pack, from byte `at` on; packs that their writer has not settled yet, and since when.
packed = sa.Table(
    "packed",
    _meta,
    sa.Column("image", sa.Text, primary_key=True),
    sa.Column("pack", sa.Text),
    *(sa.Column(name, sa.BigInteger) for name in ("at", "size")),
)
unsettled = sa.Table("unsettled", _meta, sa.Column("pack", sa.Text, primary_key=True), sa.Column("at", sa.BigInteger))

TABLES = (events, captures, shadows, labels, heads, snapshots, costs, packed, unsettled)
