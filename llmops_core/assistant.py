"""`assistant.yaml`: what one assistant is, validated before anything runs.

Strict on purpose: an unknown key is an error, since a misspelt option that is silently ignored is worse than none. Every
error names the file, the key and what is allowed.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from llmops_core.errors import ConfigError

FILE_NAME = "assistant.yaml"


class Section(BaseModel):
    """A part of `assistant.yaml`: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PythonTopicsSource(Section):
    """The language reference inside the running CPython; nothing to download."""

    type: Literal["python_topics"]


class FolderSource(Section):
    """Markdown, text, reStructuredText, HTML, PDF and DOCX files below a folder."""

    type: Literal["folder"]
    path: str = Field(description="Folder, relative to the assistant's own.")
    glob: str = Field("**/*", description="Which files below it, as a glob pattern.")


class JsonlSource(Section):
    """One JSON object a line; the three names say which of its fields to read."""

    type: Literal["jsonl"]
    path: str = Field(description="File, relative to the assistant's folder.")
    id: str = Field("doc_id", description="Field with the document id; it is used as it is.")
    title: str = Field("title", description="Field with the title; may be missing in a row.")
    text: str = Field("text", description="Field with the text.")


class GitSource(Section):
    """Files of a git repository, at the tip of a branch (of the default branch, if none is named) or at one revision."""

    type: Literal["git"]
    url: str = Field(min_length=1, description="As for git clone; a path is relative to the assistant's folder.")
    branch: str | None = Field(None, min_length=1, description="Branch to follow.")
    revision: str | None = Field(None, min_length=1, description="Commit (all its digits) or tag, instead of a branch.")
    path: str = Field("", description="Folder within the repository.")
    glob: str = Field("**/*", description="Which files below it, as a glob pattern.")

    @model_validator(mode="after")
    def _one_state(self) -> "GitSource":
        if self.branch and self.revision:
            raise ValueError("names a branch to follow or a revision to stay at, not both")
        if any(value.startswith("-") for value in (self.url, self.branch or "", self.revision or "")):
            raise ValueError("url, branch and revision cannot begin with -")
        return self


class WebSource(Section):
    """The pages that a site's sitemap lists, asked for politely: HTML, text, Markdown, PDF and DOCX."""

    type: Literal["web"]
    sitemap: str = Field(description="Address of the sitemap, or of an index of sitemaps; its host alone is asked.")
    glob: str = Field("**/*", description="Which pages, as a glob pattern on the path: docs/** for all below /docs/.")
    delay_seconds: float = Field(
        1, ge=0, description="Pause between two requests; robots.txt may ask for a longer one."
    )

    @field_validator("sitemap")
    @classmethod
    def _address(cls, value: str) -> str:
        if not re.match(r"https?://[^/\s]+/", value):
            raise ValueError("give the whole address, such as https://example.org/sitemap.xml")
        return value


Source = Annotated[PythonTopicsSource | FolderSource | JsonlSource | GitSource | WebSource, Field(discriminator="type")]


class Chunking(Section):
    """How documents are cut, in tokens of the embedder."""

    size: int = Field(128, ge=16, le=8192, description="Most tokens a chunk has, title and heading path included.")
    overlap: int = Field(32, ge=0, description="Tokens that two neighbours share when one section is cut.")

    @model_validator(mode="after")
    def _overlap_below_size(self) -> "Chunking":
        if self.overlap * 2 > self.size:
            raise ValueError(f"overlap ({self.overlap}) must be at most half of size ({self.size})")
        return self


def _from_its_folder(model: str, info: ValidationInfo) -> str:
    """Make a `path:` absolute that counts from the assistant's folder."""
    scheme, _, path = model.partition(":")
    if scheme != "path" or not path.strip() or not info.context:
        return model
    return f"path:{(info.context['folder'] / Path(path).expanduser()).resolve()}"


ModelName = Annotated[str, AfterValidator(_from_its_folder)]


class EmbedderModel(Section):
    """A model that embeds chunks and questions, and what it wants put before them."""

    model: ModelName = Field(description="Built-in name, hf:<repo>@<commit>, or path:<folder>.")
    query_prefix: str = Field("", description="Put before a question, for models that want it (E5: 'query: ').")
    document_prefix: str = Field("", description="Put before a chunk, for models that want it (E5: 'passage: ').")


def _with_keys(value: object) -> object:
    return {"model": value} if isinstance(value, str) else value


class EmbedderSection(EmbedderModel):
    """Which model embeds chunks and questions."""

    model: ModelName = Field("minilm", description="Built-in name, hf:<repo>@<commit>, or path:<folder>.")
    beside: list[Annotated[EmbedderModel, BeforeValidator(_with_keys, json_schema_input_type=str | EmbedderModel)]] = (
        Field([], description="Further embedders whose vectors and index are kept up to date too; a name, or its keys.")
    )


class RerankerSection(Section):
    """A cross-encoder that orders the best hits anew."""

    model: ModelName = Field("ms-marco-minilm", description="Built-in name or path:<folder>.")
    pool: int = Field(10, ge=1, le=200, description="How many hits it sees.")


class Retrieval(Section):
    """How chunks are found for a question."""

    mode: Literal["dense", "full_text", "hybrid"] = "hybrid"
    top_k: int = Field(5, ge=1, le=100, description="Chunks that go into the prompt.")
    reranker: RerankerSection | None = None
    language: str = Field("English", description="Stemming and stop words of the full-text index.")
    query: Literal["last_turn", "condensed"] = Field(
        "last_turn", description="The last user turn as it is, or rewritten by the generator to stand alone."
    )


class Generator(Section):
    """Which model writes the answer, and where it runs."""

    engine: Literal["local", "openai"] = "local"
    model: ModelName = "smollm2-135m-instruct"
    base_url: str | None = Field(None, description="engine openai: the server's address, up to and with /v1.")
    api_key_env: str | None = Field(None, description="engine openai: variable that holds the key.")
    adapter: str | None = Field(None, description="Folder of a LoRA adapter, relative to the assistant's folder.")
    context_window: int | None = Field(None, ge=256, description="Tokens; engine openai: 8192 if not given.")
    max_tokens: int = Field(128, ge=1)
    temperature: float = Field(0, ge=0, le=2)
    top_p: float = Field(1, gt=0, le=1)

    @model_validator(mode="after")
    def _address(self) -> "Generator":
        if self.engine == "openai" and not self.base_url:
            raise ValueError("engine openai needs base_url, for example http://127.0.0.1:8000/v1")
        if self.engine == "local" and (self.base_url or self.api_key_env):
            raise ValueError("base_url and api_key_env belong to engine openai")
        return self


BudgetPart = Literal["chunks", "history", "features"]


class Prompt(Section):
    """The template, and what gives way first when the context window is full."""

    template: str = "prompts/answer.jinja"
    budget: list[BudgetPart] = ["chunks", "history", "features"]

    @field_validator("budget")
    @classmethod
    def _each_once(cls, value: list[BudgetPart]) -> list[BudgetPart]:
        if len(set(value)) != len(value):
            raise ValueError("names each of chunks, history, features at most once")
        return value


class GateRule(Section):
    """One condition of the gate."""

    metric: Literal["recall_at_1", "recall_at_5", "ndcg_at_10", "exact_match", "f1", "empty_rate"]
    mode: Literal["better", "not_worse"]
    margin: float = Field(0.0, ge=0, le=1)


class Gate(Section):
    """What a release has to show against the one that serves."""

    min_cases: int = Field(100, ge=1)
    alpha: float = Field(0.05, gt=0, lt=1)
    rules: list[GateRule] = []


class Evaluation(Section):
    """The labelled questions and how many of them are answered, not only retrieved for."""

    cases: str | None = Field(None, description="Case file, relative to the assistant's folder.")
    answers: int = Field(12, ge=0, description="Held-out cases that are answered in full; retrieval runs on all.")
    gate: Gate = Gate()


class Canary(Section):
    """How a release meets its first users."""

    share: float = Field(0.1, gt=0, lt=1)
    min_requests: int = Field(200, ge=1)
    max_hours: float = Field(24, gt=0)


class ReleaseSection(Section):
    """How releases reach users."""

    approval: Literal["required", "none"] = "required"
    index_only: Literal["automatic", "manual"] = Field(
        "automatic", description="Whether fresh documents serve by themselves once their checks pass."
    )
    canary: Canary = Canary()


class DocumentsTrigger(Section):
    """How often the sources are looked at."""

    every_minutes: float = Field(10, gt=0)


class Triggers(Section):
    """What starts work by itself."""

    documents: DocumentsTrigger = DocumentsTrigger()


class Retention(Section):
    """How long the past stays available."""

    log_days: int = Field(30, ge=1)
    index_days: int = Field(30, ge=1)


class Assistant(Section):
    """One assistant: the content of its `assistant.yaml` and the folder that it lies in."""

    name: str = Field(description="Letters, digits and _; also its table namespace and its model name.")
    sources: list[Source] = Field(min_length=1)
    owners: list[str] = Field([], description="E-mail addresses or team:<name>, shown in the Dagster UI.")
    chunking: Chunking = Chunking()
    embedder: EmbedderSection = EmbedderSection()
    retrieval: Retrieval = Retrieval()
    generator: Generator = Generator()
    prompt: Prompt = Prompt()
    evaluation: Evaluation = Evaluation()
    release: ReleaseSection = ReleaseSection()
    triggers: Triggers = Triggers()
    retention: Retention = Retention()
    folder: Path = Field(default=Path(), exclude=True, json_schema_extra={"x-internal": True})

    @field_validator("name")
    @classmethod
    def _identifier(cls, value: str) -> str:
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", value):
            raise ValueError("use lower-case letters, digits and _, beginning with a letter, at most 63")
        return value

    def path(self, relative: str) -> Path:
        """Resolve a path of `assistant.yaml` against the assistant's folder."""
        return (self.folder / Path(relative).expanduser()).resolve()


def load_assistant(folder: Path) -> Assistant:
    """Read and validate `<folder>/assistant.yaml`; raises `ConfigError` with file, key and what is allowed."""
    file = folder / FILE_NAME
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(
            f"{file} does not exist. Name the assistant's folder with --assistant DIR (or LLMOPS_ASSISTANT), or make one:"
            " llmops init NAME --docs DIR"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not valid YAML: {error}") from error
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}. Check its permissions") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{file}: expected keys and values such as 'name: my_assistant', found {type(data).__name__}")
    if "folder" in data:
        raise ConfigError(f"{file}: folder: unknown key. Allowed here: {_allowed(Assistant)}")
    try:
        return Assistant.model_validate({**data, "folder": folder.resolve()}, context={"folder": folder})
    except ValidationError as error:
        problems = "\n".join(f"  {_explain(e)}" for e in error.errors())
        raise ConfigError(f"{file} has {error.error_count()} problem(s):\n{problems}") from error


def _explain(error: Any) -> str:
    """One line of a validation error: the key, what is wrong, what is allowed."""
    path = [part for part in error["loc"] if not (isinstance(part, str) and part in _SOURCE_TAGS)]
    key = ".".join(str(part) for part in path) or "(top level)"
    if error["type"] == "extra_forbidden":
        return f"{key}: unknown key. Allowed here: {_allowed(_section_at(error['loc'][:-1]))}"
    if error["type"] == "missing":
        return f"{key}: is required"
    return f"{key}: {error['msg']} (it is {error['input']!r})"


_SOURCE_TAGS: dict[str, type[BaseModel]] = {
    "python_topics": PythonTopicsSource,
    "folder": FolderSource,
    "jsonl": JsonlSource,
    "git": GitSource,
    "web": WebSource,
}


def _section_at(path: tuple[str | int, ...]) -> type[BaseModel]:
    """Follow a validation error's path to the section that it happened in."""
    section: type[BaseModel] = Assistant
    for part in path:
        if part in _SOURCE_TAGS and section is Assistant:
            return _SOURCE_TAGS[str(part)]
        field = section.model_fields.get(str(part))
        if field is None:
            continue
        inner = [t for t in (field.annotation, *getattr(field.annotation, "__args__", ())) if isinstance(t, type)]
        section = next((t for t in inner if issubclass(t, BaseModel)), section)
    return section


def _allowed(section: type[BaseModel]) -> str:
    return ", ".join(name for name in section.model_fields if name != "folder")


def json_schema() -> dict[str, Any]:
    """The JSON schema of `assistant.yaml`, for editors."""
    schema = Assistant.model_json_schema()
    schema["properties"].pop("folder")
    schema["title"] = FILE_NAME
    return schema
