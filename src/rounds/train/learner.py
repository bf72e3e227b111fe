"""One step of learning, and the figures of an epoch."""

from __future__ import annotations

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
from rounds.core.specs import LoopSpec
from rounds.nets.network import Network
from rounds.train.batches import Batch
from rounds.train.optimise import optimise


class Learner(LightningModule):
    """Smoothed cross-entropy; `figures` holds the last epoch's mean training loss and validation AUC and accuracy."""

    weights: Tensor

    def __init__(self, net: Network, spec: LoopSpec, *, steps: int, labels: NDArray[np.int64], classes: int) -> None:
        super().__init__()
        self.net, self.spec, self.steps, self.classes = net, spec, steps, classes
        counts = torch.bincount(torch.from_numpy(labels), minlength=classes).float()
        self.register_buffer("weights", counts.sum() / (classes * counts) if spec.balance else torch.ones(classes))
        self.average: AveragedModel | None = None
        if spec.ema:
            update = get_ema_multi_avg_fn(spec.ema)  # type: ignore[no-untyped-call]  # torch annotates nothing here
            self.average = AveragedModel(net, multi_avg_fn=update, use_buffers=True)
        self.auc: Metric = BinaryAUROC() if classes == 2 else MulticlassAUROC(classes, average="macro")
        self.accuracy: Metric = MulticlassAccuracy(classes, average="micro")
        self.losses: list[Tensor] = []
        self.figures: dict[str, float] = {}

    @property
    def learned(self) -> Network:
        """The network to keep: the moving average of its weights where one is taken."""
        return self.net if self.average is None else cast("Network", self.average.module)

    def configure_optimizers(self) -> Any:
        optimizer, schedule = optimise(self.net, self.spec, self.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def training_step(self, batch: Batch) -> Tensor:
        pixels, labels = batch
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
        logits, _, _ = self.learned(pixels)
        self.auc.update(logits[:, 1] - logits[:, 0] if self.classes == 2 else logits, labels)
        self.accuracy.update(logits, labels)

    def on_validation_epoch_end(self) -> None:
        metrics = {"auc": self.auc, "accuracy": self.accuracy}
        self.figures = {name: float(metric.compute()) for name, metric in metrics.items()}
        self.figures["loss"] = float(torch.stack(self.losses).mean())
        self.losses.clear()
        for metric in metrics.values():
            metric.reset()
