"""`assistant.yaml` as a class, a class a section; what is allowed and what it means."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from llmops_core.assistant.section import ModelName, Section
from llmops_core.assistant.sources import Source


class Chunking(Section):
    """How documents are cut, in tokens of the embedder."""

    size: int = Field(128, ge=16, le=8192, description="Most tokens a chunk has, title and heading path included.")
    overlap: int = Field(32, ge=0, description="Tokens that two neighbours share when one section is cut.")

    @model_validator(mode="after")
    def _overlap_below_size(self) -> "Chunking":
        if self.overlap * 2 > self.size:
            raise ValueError(f"overlap ({self.overlap}) must be at most half of size ({self.size})")
        return self


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
    budget: list[BudgetPart] = Field(["chunks", "history", "features"])

    @field_validator("budget")
    @classmethod
    def _each_once(cls, value: list[BudgetPart]) -> list[BudgetPart]:
        if len(set(value)) != len(value):
            raise ValueError("names each of chunks, history, features at most once")
        return value


Score = Literal["recall_at_1", "recall_at_5", "ndcg_at_10", "exact_match", "f1", "empty_rate"]


class GateRule(Section):
    """One condition of the gate."""

    metric: Score
    mode: Literal["better", "not_worse"]
    margin: float = Field(0.0, ge=0, le=1, description="better: by more than this; not_worse: by less than this.")


class Gate(Section):
    """What a release has to show on held-out cases before it reaches users."""

    min_cases: int = Field(100, ge=1, description="With fewer held-out cases a rule is inconclusive: a person decides.")
    alpha: float = Field(0.05, gt=0, lt=1, description="How often a rule may pass a release that it should not.")
    rules: list[GateRule] = Field([], description="What a candidate has to show against the release on prod.")
    floors: dict[Score, Annotated[float, Field(ge=0, le=1)]] = Field(
        {}, description="Metric → least value (empty_rate: most) of the first release and of fresh documents."
    )


class Evaluation(Section):
    """The labelled questions and how many of them are answered, not only retrieved for."""

    cases: str | None = Field(None, description="Case file, relative to the assistant's folder.")
    answers: int = Field(12, ge=0, description="Held-out cases that are answered in full; retrieval runs on all.")
    gate: Gate = Gate()


class Canary(Section):
    """How a release meets its first users."""

    mode: Literal["share", "shadow"] = Field(
        "share", description="Some users are answered by it, or it answers copies of requests that no user sees."
    )
    share: float = Field(0.1, gt=0, lt=1, description="Of users: it answers them, or copies of their requests.")
    min_requests: int = Field(
        200, ge=1, description="Least requests in each arm, of which each user's first counts, before it can pass."
    )
    max_hours: float = Field(24, gt=0, description="After so many hours without enough of them it is rolled back.")
    alpha: float = Field(0.05, gt=0, lt=1, description="Probability at most to roll back one that does no harm.")
    metrics: list[Literal["errors", "latency", "empty", "feedback"]] = Field(
        ["errors", "latency", "empty", "feedback"],
        min_length=1,
        description="What is compared; alpha is split over them.",
    )

    @model_validator(mode="after")
    def _comparable(self) -> "Canary":
        if len(set(self.metrics)) != len(self.metrics):
            raise ValueError("metrics names each metric at most once")
        if self.mode == "shadow" and not {"errors", "empty"} & set(self.metrics):
            raise ValueError("mode shadow compares errors and empty: name one of them in metrics")
        return self


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
