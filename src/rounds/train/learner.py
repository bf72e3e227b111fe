"""One step of learning, and the figures of an epoch."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch import LightningModule
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchmetrics import Metric
from torchmetrics.classification import BinaryAUROC, MulticlassAccuracy, MulticlassAUROC

from rounds.core.errors import CallerFault, Fault
from rounds.core.specs import TrainSpec
from rounds.nets.network import Network
from rounds.train.batches import Batch, seed_of
from rounds.train.optimise import optimise

_KEPT = "rounds"


class Spent:
    """Seconds, and CPU seconds of all processes, since it was made; a run that goes on adds what it spent before."""

    def __init__(self) -> None:
        self.so_far = (0.0, 0.0)
        self._since = time.perf_counter(), time.process_time()

    def add(self, of_all: Callable[[float], float]) -> None:
        """Book what has passed since the last call; `of_all` sums the CPU seconds over the processes."""
        now = time.perf_counter(), time.process_time()
        seconds, cpu = (after - before for after, before in zip(now, self._since, strict=True))
        self.so_far, self._since = (self.so_far[0] + seconds, self.so_far[1] + of_all(cpu)), now


class Learner(LightningModule):
    """Smoothed cross-entropy; `figures` holds the last epoch's mean training loss and validation AUC and accuracy.

    Of several processes each normalises its batches by its own share of them; running means are those of the first.
    """

    weights: Tensor

    def __init__(
        self, net: Network, spec: TrainSpec, *, steps: int, labels: NDArray[np.int64], classes: int, spent: Spent
    ) -> None:
        super().__init__()
        self.net, self.spec, self.steps, self.classes, self.spent = net, spec.train, steps, classes, spent
        self._seed = spec.seed
        counts = torch.bincount(torch.from_numpy(labels), minlength=classes).float()
        self.register_buffer("weights", counts.sum() / (classes * counts) if self.spec.balance else torch.ones(classes))
        self.average: AveragedModel | None = None
        if self.spec.ema:
            update = get_ema_multi_avg_fn(self.spec.ema)  # type: ignore[no-untyped-call]  # not annotated
            self.average = AveragedModel(net, multi_avg_fn=update, use_buffers=True).requires_grad_(False)
        if self.spec.compile:
            net.compile()
        self.auc: Metric = BinaryAUROC() if classes == 2 else MulticlassAUROC(classes, average="macro")
        self.accuracy: Metric = MulticlassAccuracy(classes, average="micro")
        self.losses: list[Tensor] = []
        self.figures: dict[str, float] = {}
        self.epochs = 0

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes the hook that it is in, before and after: forty times a step, each through torch's search for
        # weights and modules of that name.
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    @property
    def learned(self) -> Network:
        """The network to keep: the moving average of its weights where one is taken."""
        return self.net if self.average is None else cast("Network", self.average.module)

    def configure_optimizers(self) -> Any:
        optimizer, schedule = optimise(self.net, self.spec, self.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[_KEPT] = {"epochs": self.epochs, "figures": self.figures, "spent": list(self.spent.so_far)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        kept = checkpoint[_KEPT]
        self.epochs, self.figures, self.spent.so_far = kept["epochs"], dict(kept["figures"]), tuple(kept["spent"])

    def training_step(self, batch: Batch) -> Tensor:
        pixels, labels = batch
        # What dropout draws depends on the step alone, as if the run had never been cut off.
        _reseed(seed_of(self._seed, "step", self.global_step, self.global_rank), self.device)
        logits, _, _ = self.net(pixels)
        loss = cross_entropy(logits, labels, self.weights, label_smoothing=self.spec.label_smoothing)
        if not torch.isfinite(loss):
            fault = Fault(
                "the loss is not a number",
                f"epoch {self.current_epoch + 1}, step {self.global_step + 1} of {self.steps}",
                "a finite loss",
                str(loss.item()),
                f"lower train.lr, which is {self.spec.lr}",
            )
            raise CallerFault("the training diverged", [fault])
        self.losses.append(loss.detach())
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        if self.average is not None:
            self.average.update_parameters(self.net)

    def validation_step(self, batch: Batch) -> None:
        pixels, labels = batch
        # in full precision always, as the bundle will answer
        with torch.autocast(self.device.type, enabled=False):
            logits, _, _ = self.learned(pixels)
        self.auc.update(logits[:, 1] - logits[:, 0] if self.classes == 2 else logits, labels)
        self.accuracy.update(logits, labels)

    def on_validation_epoch_end(self) -> None:
        metrics = {"auc": self.auc, "accuracy": self.accuracy}
        self.figures = {name: float(metric.compute()) for name, metric in metrics.items()}
        mean = torch.stack(self.losses).mean()
        self.figures["loss"] = float(self.trainer.strategy.reduce(mean, reduce_op="mean"))
        self.losses.clear()
        for metric in metrics.values():
            metric.reset()


def _reseed(seed: int, device: torch.device) -> None:
    """What torch.manual_seed does for the devices in use; that takes 5 ms, a tenth of a step of the small net."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
