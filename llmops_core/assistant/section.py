"""What all sections of `assistant.yaml` share."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo


class Section(BaseModel):
    """A part of `assistant.yaml`: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _from_its_folder(model: str, info: ValidationInfo) -> str:
    """Make a `path:` absolute that counts from the assistant's folder."""
    scheme, _, path = model.partition(":")
    if scheme != "path" or not path.strip() or not info.context:
        return model
    return f"path:{(info.context['folder'] / Path(path).expanduser()).resolve()}"


ModelName = Annotated[str, AfterValidator(_from_its_folder)]
