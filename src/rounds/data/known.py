"""What is published of sources that Rounds knows by name: whose films they are, and the terms of their use."""

from __future__ import annotations

from rounds.data.medmnist import SCHEME

# Where this is published stands at the top of `medmnist`.
_MEDMNIST = "Yang et al., MedMNIST v2, Scientific Data 10:41, 2023; files of doi 10.5281/zenodo.10519652"
_FIRST = {"pneumoniamnist": "films of Kermany, Zhang and Goldbaum 2018, doi 10.17632/rscbjbr9sj, CC BY 4.0"}
_PHANTOM = "phantom:"


def known(source: str) -> dict[str, str] | None:
    """`source` (whom to cite) and `licence` of a source as it was typed; None for one that nothing is known of."""
    if source.startswith(SCHEME):
        name = source.removeprefix(SCHEME).partition("_")[0].lower()
        first = f"; {_FIRST[name]}" if name in _FIRST else ""
        licence = "CC BY-NC 4.0" if name == "dermamnist" else "CC BY 4.0"
        return {"source": f"{_MEDMNIST}{first}", "licence": licence}
    if source.startswith(_PHANTOM):
        drawn = "drawn by Rounds: phantoms, films of nobody, which look a little like X-rays and mean nothing"
        return {"source": drawn, "licence": "none is needed: no person and no owner is behind them"}
    return None
