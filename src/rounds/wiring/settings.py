"""What a deployment sets: ROUNDS_* variables, or nothing at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from rounds.core.errors import BadOverride, Fault


class Settings(BaseSettings):
    """Where state lives. Everything lies in the workspace `home` unless a variable moves it.

    ROUNDS_HOME, ROUNDS_ROWS (SQLAlchemy URL), ROUNDS_BLOBS (a folder, s3://BUCKET/PATH or gs://BUCKET/PATH),
    ROUNDS_MIGRATE (false: whoever opens an older schema leaves it and says what to run), ROUNDS_TRACKING (MLflow
    tracking URI), ROUNDS_SECRET (keys pseudonyms and the audit's draw, 16 characters or more; made once in home/secret
    where unset), ROUNDS_LOG_LEVEL, ROUNDS_MEDMNIST_MIRROR (a folder or address that holds MedMNIST's files, in place of
    their publisher).
    Raises BadOverride, with every setting that cannot be read.
    """

    model_config = SettingsConfigDict(env_prefix="ROUNDS_", env_ignore_empty=True, extra="ignore")

    home: Path = Path(".rounds")
    rows: str | None = None
    blobs: str | None = None
    migrate: bool = True
    tracking: str | None = None
    secret: str | None = Field(default=None, min_length=16, repr=False)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    medmnist_mirror: str | None = None

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise BadOverride(
                "the settings cannot be read", [_fault(dict(found)) for found in error.errors()]
            ) from error

    @property
    def rows_url(self) -> str:
        """The database of events, captures, snapshots and costs."""
        return self.rows or f"sqlite:///{self.home.absolute() / 'rounds.db'}"

    @property
    def blobs_at(self) -> str:
        """Where images and reports are kept: a folder, or the address of an object store."""
        return self.blobs or str(self.home.absolute() / "blobs")

    @property
    def tracking_uri(self) -> str:
        """Where MLflow keeps runs."""
        return self.tracking or f"sqlite:///{self.home.absolute() / 'mlflow.db'}"


def _fault(found: dict[str, Any]) -> Fault:
    name = "_".join(str(part) for part in found["loc"]).upper()
    # The key itself is never shown.
    got = "" if name == "SECRET" else str(found.get("input", ""))
    return Fault(str(found["msg"]), f"ROUNDS_{name}", got=got)
