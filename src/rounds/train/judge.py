"""What a network makes of films while it is still a torch module: to choose between trainings, not to report on one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from rounds.core.records import DatasetVersion
from rounds.core.specs import TrainSpec
from rounds.imaging.packed import Films
from rounds.imaging.stress import stress
from rounds.nets.network import Network
from rounds.stats.metrics import auc, present_mean

_BATCH = 256


class Stressed:
    """The stressed validation films of a data set, as one ImagingSpec shows them: `pixels` uint8 (m, c, s, s), true
    classes `y` int64 (m,), `subjects`."""

    def __init__(self, dataset: DatasetVersion, spec: TrainSpec, seed: int) -> None:
        films = Films(dataset.path)
        rows = films.rows("val")
        self.pixels, places = stress(films.pixels(spec.imaging)[rows.index], rows.labels, seed=seed)
        self.y = rows.labels[places]
        self.subjects = [rows.subjects[place] for place in places]


@torch.no_grad()
def probabilities(net: Network, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Softmax of the logits of films uint8 (m, c, s, s), float64 (m, k), in evaluation mode."""
    training = net.training
    net.eval()
    device = next(net.parameters()).device
    parts = [pixels[start : start + _BATCH] for start in range(0, len(pixels), _BATCH)]
    logits = torch.cat([net(torch.from_numpy(np.array(part)).to(device))[0] for part in parts])
    net.train(training)
    return np.asarray(logits.double().softmax(dim=1).cpu().numpy(), np.float64)


def area(y: npt.NDArray[np.int64], said: npt.NDArray[np.float64]) -> float:
    """Area under the ROC curve of probabilities (m, k); of more than two classes the mean of each against the rest."""
    if said.shape[1] == 2:
        return auc(y, said[:, 1])
    each = [auc((y == c).astype(np.int64), said[:, c]) for c in range(said.shape[1])]
    return float(present_mean(np.array([each]))[0])
