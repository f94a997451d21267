"""How a model is named: a built-in name, `hf:<repo>@<commit>` or `path:<folder>`.

A hub model must name a commit, since branches and tags move and a release must pin what it was made with.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from llmops_core.errors import ModelError
from llmops_core.ids import content_hash
from llmops_core.models.builtin import BUILTIN, BuiltinModel, Role


@dataclass(frozen=True)
class HubModel:
    """A model of the Hugging Face hub at one commit."""

    repo: str
    commit: str
    licence = "see README.md"

    @property
    def reference(self) -> str:
        """How `assistant.yaml` names it."""
        return f"hf:{self.repo}@{self.commit}"

    @property
    def source(self) -> str:
        """Where its files come from."""
        return self.reference

    @property
    def made_from(self) -> str:
        """Content hash of what pins it."""
        return content_hash([self.repo, self.commit])

    @property
    def folder_name(self) -> str:
        """Name of its folder below the models folder."""
        return f"hf--{self.repo.replace('/', '--')}--{self.commit}"


@dataclass(frozen=True)
class FolderModel:
    """A model in a folder of the user's own."""

    folder: Path


Pullable = BuiltinModel | HubModel
Reference = Pullable | FolderModel


def parse_reference(reference: str, kind: Role | None = None) -> Reference:
    """Read a model's name as `assistant.yaml` writes it; no file is touched.

    `kind` is the role that the model is wanted for; None takes any.
    Raises `ModelError` that lists what is allowed if the name is unknown, names a model of another role, or names no
    commit.
    """
    scheme, colon, rest = reference.partition(":")
    if colon and scheme == "hf":
        return _hub_model(reference, rest)
    if colon and scheme == "path":
        if not rest.strip():
            raise ModelError(f"Model '{reference}' names no folder. Write path:<folder>")
        return FolderModel(Path(rest).expanduser().resolve())
    model = BUILTIN.get(reference)
    allowed = ", ".join(known.name for known in BUILTIN.values() if kind in (None, known.role))
    if model is None:
        raise ModelError(
            f"Unknown {kind or 'model'} '{reference}'. Allowed: {allowed} (built in), hf:<repo>@<commit>, or"
            " path:<folder>"
        )
    if kind and model.role != kind:
        raise ModelError(f"'{reference}' is a model of role {model.role}, not {kind}. Built in for {kind}: {allowed}")
    return model


def licence_of(reference: str) -> str | None:
    """The licence of a model's weights, or where it is written; None for a folder of the user's own. Raises `ModelError`."""
    model = parse_reference(reference)
    return None if isinstance(model, FolderModel) else model.licence


def slug(name: str) -> str:
    """Turn any name into lower-case letters, digits and `-`, at most 48 of them."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:48].strip("-") or "model"


def _hub_model(reference: str, rest: str) -> HubModel:
    repo, _, commit = rest.partition("@")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", repo):
        raise ModelError(f"Model '{reference}' names no repository. Write hf:<owner>/<name>@<commit>")
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        what = f"'{commit}', which can move" if commit else "no revision"
        raise ModelError(
            f"Model '{reference}' names {what}: a release must pin a model, so write hf:{repo}@<commit> with the 40 hex"
            f" digits of a commit (on the hub: {repo}, Files and versions, History)"
        )
    return HubModel(repo, commit)
