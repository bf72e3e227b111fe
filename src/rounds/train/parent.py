"""A process that ends with the one that started it."""

from __future__ import annotations

import os
import sys
import threading


def end_with_parent() -> None:
    """End this process when its parent is gone, however it went: the parent's end of our stdin closes then."""

    def watch() -> None:
        # unbuffered: a reader of sys.stdin would hold a lock that the interpreter wants when it ends
        while os.read(sys.stdin.fileno(), 1):
            pass
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()
