"""The URI of a prompt version, as prompt registries write it: `prompts:/answer/3`, or `prompts:/answer@prod`."""

import re
from dataclasses import dataclass

from llmops_core.errors import InvalidRequestError, NotFoundError
from llmops_core.prompts.versions import PromptVersion
from llmops_core.release.registry import Releases

_URI = re.compile(r"prompts:/(?P<name>[^/@\s]+)(?:/(?P<version>[1-9]\d*)|@(?P<channel>\w+))")


@dataclass(frozen=True)
class PromptUri:
    """A prompt by its name, and one version of it by number or by the channel whose release pins it."""

    name: str
    version: int | None
    channel: str | None


def parse_prompt_uri(text: str) -> PromptUri:
    """Read a URI; raises `InvalidRequestError` that says how one is written."""
    found = _URI.fullmatch(text)
    if found is None:
        raise InvalidRequestError(
            f"{text!r} names no version of a prompt. Write prompts:/NAME/NUMBER or prompts:/NAME@CHANNEL, for example"
            " prompts:/answer/3 or prompts:/answer@prod"
        )
    return PromptUri(found["name"], int(found["version"]) if found["version"] else None, found["channel"])


def find_prompt(releases: Releases, text: str) -> PromptVersion:
    """The version that a URI names; raises `NotFoundError` with those there are."""
    uri = parse_prompt_uri(text)
    versions = [version for version in releases.prompts.all() if version.name == uri.name]
    if not versions:
        names = ", ".join(sorted({version.name for version in releases.prompts.all()}))
        raise NotFoundError(
            f"{text}: there is no prompt {uri.name!r}. Prompts are: {names or 'none yet (llmops build)'}"
        )
    number = uri.version
    if uri.channel:
        state = releases.channels.state()
        if uri.channel not in state:
            raise NotFoundError(
                f"{text}: no release is on {uri.channel}. Channels with one: {', '.join(state) or 'none'}"
            )
        pin = releases.get(uri.channel).manifest.prompt
        if pin.name != uri.name:
            raise NotFoundError(
                f"{text}: the release on {uri.channel} has prompt {pin.name!r}. Write prompts:/{pin.name}@…"
            )
        number = pin.version
    for version in versions:
        if version.version == number:
            return version
    raise NotFoundError(f"{text}: prompt {uri.name!r} has versions 1 to {versions[-1].version}.")
