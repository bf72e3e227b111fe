"""Ray, started quietly on this machine, or joined where one runs."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def ray_cluster(workers: int) -> Iterator[Any]:
    """The `ray` module, connected to the cluster of RAY_ADDRESS, or to one of `workers` CPUs on loopback that ends with
    the block."""
    # Read when ray is imported: no figures about us leave this machine, and no warnings about what we do not use.
    for name, value in (("RAY_USAGE_STATS_ENABLED", "0"), ("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")):
        os.environ.setdefault(name, value)
    import ray

    address = os.environ.get("RAY_ADDRESS")
    here: dict[str, Any] = (
        {} if address else {"num_cpus": workers, "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    )
    ray.init(address=address or "local", logging_level=logging.ERROR, log_to_driver=False, **here)
    try:
        yield ray
    finally:
        ray.shutdown()
