"""Section `sources` of `assistant.yaml`: where documents come from, a class a type."""

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from llmops_core.assistant.section import Section


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
