"""The same work in many threads at once."""

from __future__ import annotations

import threading
from collections.abc import Callable


def together(work: Callable[[int], None], n: int) -> None:
    """Run the work in n threads and raise what any of them raised."""
    raised: list[BaseException] = []

    def guarded(who: int) -> None:
        try:
            work(who)
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=guarded, args=(who,)) for who in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]
