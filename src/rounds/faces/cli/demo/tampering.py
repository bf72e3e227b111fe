"""Does the audit find a changed entry? A copy of the log is changed by hand, and audited."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from rounds.core.ports import Ports
from rounds.loop import tracing


def found(ports: Ports) -> bool:
    """Whether a reason changed in the middle of a copied log is found at that very entry."""
    from rounds.wiring.serving import open_ports
    from rounds.wiring.settings import Settings

    events = ports.events.read()
    target = events[len(events) // 2]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "rounds.db"
        with closing(sqlite3.connect(ports.home / "rounds.db")) as source, closing(sqlite3.connect(copy)) as sink:
            source.backup(sink)
            for (trigger,) in sink.execute("select name from sqlite_master where type = 'trigger'").fetchall():
                sink.execute(f'drop trigger "{trigger}"')
            sink.execute("update events set why = 'nothing happened' where seq = ?", (target.seq,))
            sink.commit()
        with open_ports(Settings(home=Path(folder))) as tampered:
            answer = tracing.audit(tampered)
    return not answer["ok"] and answer["first_broken"] == target.id
