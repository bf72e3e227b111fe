"""Model versions and the champion in MLflow's registry, as the event log has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

CHAMPION = "champion"
VERSION, BUNDLE = "rounds.version", "rounds.bundle"


def mirror(client: MlflowClient, model: str, versions: Sequence[Mapping[str, str]], champion: str | None) -> None:
    """Enter what the registry lacks and point the alias at the champion, or at nothing; what is right is left alone.

    `versions` are {"version", "bundle", "run"}, in order; "run" is MLflow's id of it, or nothing. Raises MLflow's own.
    """
    _model(client, model)
    known = {found.tags.get(VERSION): found for found in client.search_model_versions(f"name = '{model}'")}
    for version in versions:
        if version["version"] not in known:
            tags = {VERSION: version["version"], BUNDLE: version["bundle"]}
            run = version["run"] or None
            # where no run is known here, the bundle's own name stands for its place
            source = f"runs:/{run}/bundle/{version['bundle']}" if run else f"rounds:/{version['bundle']}"
            known[version["version"]] = client.create_model_version(model, source, run, tags, await_creation_for=0)
    pointed = client.get_registered_model(model).aliases.get(CHAMPION)
    wanted = known[champion].version if champion else None
    if wanted is not None and str(pointed) != str(wanted):
        client.set_registered_model_alias(model, CHAMPION, wanted)
    elif wanted is None and pointed is not None:
        client.delete_registered_model_alias(model, CHAMPION)


def _model(client: MlflowClient, model: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(model, description="Mirrored by Rounds: its own log says what serves.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
