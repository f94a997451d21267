"""Corpora of any size for benchmarks: folders of Markdown whose every section becomes one chunk."""

import random
from pathlib import Path

WORDS_A_SECTION = 40
_SYLLABLES = (
    "ba",
    "cor",
    "del",
    "fi",
    "gra",
    "hum",
    "jo",
    "ket",
    "lim",
    "mor",
    "nes",
    "pul",
    "ras",
    "sto",
    "tir",
    "vin",
)


def write_corpus(folder: Path, documents: int, sections: int) -> None:
    """Write `documents` files of `sections` sections each; the same numbers give the same texts."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(documents):
        write_document(folder, number, sections, edition=0)


def write_document(folder: Path, number: int, sections: int, edition: int) -> None:
    """Write one of them; each edition has other words in every section."""
    words = random.Random(f"{number} {edition}")
    body = "\n\n".join(f"## Section {section}\n\n{_sentence(words)}" for section in range(sections))
    (folder / f"{number:06}.md").write_text(f"# Document {number}\n\n{body}\n", encoding="utf-8")


def _sentence(words: random.Random) -> str:
    chosen = ("".join(words.choices(_SYLLABLES, k=words.randint(1, 3))) for _ in range(WORDS_A_SECTION))
    return " ".join(chosen).capitalize() + "."
