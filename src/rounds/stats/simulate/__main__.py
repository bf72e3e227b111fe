"""`python -m rounds.stats.simulate [--lives N] [--seed S]`: measured rates beside the stated ones; exit 1 where one is
broken."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

from rounds.stats.simulate import covering, lives


def everything(n: int, seed: int) -> Iterator[lives.Measured]:
    """Every simulation, n lives each."""
    yield from lives.everything(n, seed)
    yield from covering.everything(n, seed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run every simulation and print a line for each; the number of broken promises, at most 1, is the exit code."""
    parser = argparse.ArgumentParser(prog="python -m rounds.stats.simulate", description=__doc__)
    parser.add_argument("--lives", type=int, default=1000, help="lives behind each stated rate (default 1000)")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    broken = False
    for result in everything(given.lives, given.seed):
        sys.stdout.write(f"{result}\n")
        sys.stdout.flush()
        broken |= result.broken
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
