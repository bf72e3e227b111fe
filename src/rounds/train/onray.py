"""The same on Ray Train: python -m rounds.train.onray JOB N asks a cluster for N processes and waits for them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rounds.train.cluster import ray_cluster
from rounds.train.parent import end_with_parent


def worker(config: dict[str, Any]) -> None:
    """One process of Ray Train."""
    from ray.train import lightning

    from rounds.train.rank import train

    parts: Any = lightning  # Ray annotates nothing here
    trainer = {"strategy": parts.RayDDPStrategy(), "plugins": [parts.RayLightningEnvironment()], "devices": "auto"}
    train(Path(config["job"]), {"accelerator": "auto", **trainer})


def main(path: Path, processes: int) -> None:
    """Ask for the processes and wait for them."""
    with ray_cluster(processes) as ray:
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        cuda = ray.cluster_resources().get("GPU", 0) >= processes
        TorchTrainer(
            worker,
            train_loop_config={"job": str(path.resolve())},
            torch_config=TorchConfig(backend="nccl" if cuda else "gloo"),
            scaling_config=ScalingConfig(num_workers=processes, use_gpu=cuda),
            run_config=RunConfig(name="ray", storage_path=str(path.resolve().parent)),
        ).fit()


if __name__ == "__main__":
    end_with_parent()
    main(Path(sys.argv[1]), int(sys.argv[2]))
