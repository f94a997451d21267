"""Where things run: infrastructure settings from `LLMOPS_…` environment variables.

What the product is comes from `assistant.yaml`; PyIceberg and Dagster keep their own variables where they have some. The
defaults put everything under one folder, `LLMOPS_HOME`, so that a laptop needs no setting at all.
"""

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from llmops_core.errors import ConfigError


def project_root(start: Path | None = None) -> Path:
    """Find the project: the nearest folder at or above `start` with a `workspace.yaml`, else `start` itself."""
    here = (start or Path.cwd()).resolve()
    return next((folder for folder in (here, *here.parents) if (folder / "workspace.yaml").exists()), here)


class Settings(BaseModel):
    """Infrastructure settings; every field is the variable `LLMOPS_<FIELD>`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path = Field(default_factory=lambda: project_root() / ".llmops")
    """All local data and models."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where models run."""
    catalog: str = "llmops"
    """Name of the PyIceberg catalog. If PyIceberg's own configuration has one of this name, it is used; else SQLite and a
    folder under `home`."""
    lancedb_uri: str = ""
    """Root of the vector indexes: a folder or `s3://…`. Default: `<home>/lancedb`."""
    executor: Literal["in_process", "multiprocess", "k8s"] = "in_process"
    """How the steps of a run are spread."""
    embed_buckets: int = Field(default=1, ge=1, le=256)
    """Into how many steps (and so pods) new chunks are spread for embedding."""
    host: str = "127.0.0.1"
    """Address that the gateway binds."""
    port: int = Field(default=8400, ge=0, le=65535)
    """Port of the gateway; 0 picks a free one."""

    @field_validator("home", mode="after")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().resolve()

    @property
    def dagster_home(self) -> Path:
        """Dagster's own storage."""
        return self.home / "dagster"

    @property
    def models(self) -> Path:
        """Model files, a folder each."""
        return self.home / "models"

    @property
    def lakehouse(self) -> Path:
        """The default catalog's database and warehouse."""
        return self.home / "lakehouse"

    @property
    def lancedb(self) -> str:
        """Root of the vector indexes."""
        return self.lancedb_uri or str(self.home / "lancedb")

    @property
    def sources(self) -> Path:
        """Copies of what sources bring from elsewhere; they may be deleted at any time."""
        return self.home / "sources"

    @property
    def spool(self) -> Path:
        """The request spool: `<assistant>/<gateway_id>/` below it."""
        return self.home / "spool"

    @property
    def gateway(self) -> Path:
        """The gateway's local copy of channels, manifests and prompts."""
        return self.home / "gateway"


def load_settings(**overrides: Any) -> Settings:
    """Read the settings from the environment; `overrides` win. Raises `ConfigError` that names the variable."""
    # A variable that is set to nothing counts as not set, as in `.env`: the working folder is no home.
    # Not by pydantic-settings: importing it takes longer than all else that a code location loads of ours.
    variables = {field: os.environ.get(f"LLMOPS_{field.upper()}") for field in Settings.model_fields}
    try:
        return Settings(**{field: value for field, value in variables.items() if value} | overrides)
    except ValidationError as error:
        problems = "; ".join(
            f"LLMOPS_{'_'.join(str(part) for part in e['loc']).upper()}: {e['msg']} (it is {e['input']!r})"
            for e in error.errors()
        )
        raise ConfigError(f"Environment: {problems}") from error
