"""Assistants over data that nobody here wrote: every retrieval mode side by side, the default above plain BM25.

Needs the data folder `shared/data` beside the project; skipped where it is absent.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from llmops_cli.build import build
from llmops_core.answering.loaded import LoadedRelease, ModelPool, load_release
from llmops_core.assistant import load_assistant
from llmops_core.evaluation.metrics import ranked_documents, recall_at_k
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.release.registry import Releases
from llmops_core.settings import Settings

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
MODES = ("dense", "full_text", "hybrid")
# Questions of each set: enough for two digits, few enough for a minute.
QUESTIONS = 300

pytestmark = pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is not here")


def releases_by_mode(
    settings: Settings, folder: Path, sources: list[dict[str, str]], more: str = "", modes: Sequence[str] = MODES
) -> dict[str, LoadedRelease]:
    """The newest release of an assistant over `sources`, with `more` in its assistant.yaml, in these retrieval modes."""
    (folder / "prompts").mkdir(parents=True, exist_ok=True)
    (folder / "prompts" / "answer.jinja").write_text(
        "{% block system %}s{% endblock %}{% block user %}{{ question }}{% endblock %}", encoding="utf-8"
    )
    (folder / "assistant.yaml").write_text(
        f"name: real\nsources: {json.dumps(sources)}\nchunking: {{size: 128, overlap: 32}}\n{more}", encoding="utf-8"
    )
    assistant = load_assistant(folder)
    build(settings, assistant)
    registry = Releases(Lakehouse.open(settings), "real")
    release = registry.get("dev")
    text, pool = registry.prompt_text(release), ModelPool(settings)
    retrieval = release.manifest.retrieval
    return {
        mode: load_release(
            settings,
            pool,
            release.manifest.model_copy(update={"retrieval": retrieval.model_copy(update={"mode": mode})}),
            text,
        )
        for mode in modes
    }


def recalls(release: LoadedRelease, queries: list[dict[str, list[str]]]) -> tuple[float, float]:
    ranked = [ranked_documents(release.retrieve(str(q["question"]), 30).hits) for q in queries]
    golds = [q["gold_doc_ids"] for q in queries]
    first, fifth = (
        sum(recall_at_k(r, g, k) for r, g in zip(ranked, golds, strict=True)) / len(queries) for k in (1, 5)
    )
    return first, fifth


def print_scores(heading: str, scores: dict[str, tuple[float, float]]) -> None:
    print(f"\n{heading}")
    for mode, (first, fifth) in scores.items():
        print(f"  {mode:<24} recall@1 {first:.3f}  recall@5 {fifth:.3f}")


def read(file: Path) -> list[dict[str, list[str]]]:
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    step = max(1, len(rows) // QUESTIONS)
    return rows[::step]


@pytest.mark.parametrize(
    ("name", "corpora", "floors"),
    [
        # Both halves lie in one index, which is harder than the floor of either.
        ("feedbackqa", ("WHO", "CDC"), {"WHO.test": (0.62, 0.85), "CDC.test": (0.46, 0.73)}),
        ("xquad", ("en",), {"en": (0.92, 0.98)}),
    ],
)
def test_the_default_mode_beats_plain_bm25(
    tmp_path: Path,
    home_with_models: Settings,
    name: str,
    corpora: tuple[str, ...],
    floors: dict[str, tuple[float, float]],
) -> None:
    # The heading of a passage is what people would title it by; the page's title is the same for dozens of passages.
    title = "section" if name == "feedbackqa" else "title"
    sources = [
        {
            "type": "jsonl",
            "path": str(DATA / name / f"corpus.{corpus}.jsonl"),
            "id": "doc_id",
            "title": title,
            "text": "text",
        }
        for corpus in corpora
    ]
    loaded = releases_by_mode(home_with_models, tmp_path / "real", sources)
    above = [0.0, 0.0]
    for half, floor in floors.items():
        asked = read(DATA / name / f"queries.{half}.jsonl")
        scores = {mode: recalls(release, asked) for mode, release in loaded.items()}
        print_scores(f"{name} {half}: {len(asked)} questions", {"BM25 over whole passages": floor} | scores)
        for k in (0, 1):
            above[k] += len(asked) * (scores["hybrid"][k] - floor[k])
    assert min(above) >= 0


def test_russian_is_found_by_its_stems_and_better_still_with_a_multilingual_embedder(
    tmp_path: Path, home_with_models: Settings
) -> None:
    corpus = str(DATA / "xquad/corpus.ru.jsonl")
    source = {"type": "jsonl", "path": corpus, "id": "doc_id", "title": "title", "text": "text"}
    asked = read(DATA / "xquad/queries.ru.jsonl")[::2]
    scores = {}
    for language, modes in (("English", ("full_text",)), ("Russian", MODES)):
        more = f"embedder: {{model: multilingual-e5-small}}\nretrieval: {{language: {language}}}\n"
        loaded = releases_by_mode(home_with_models, tmp_path / "real", [source], more, modes)
        scores[language] = {mode: recalls(release, asked) for mode, release in loaded.items()}
        print_scores(f"xquad ru with language {language}: {len(asked)} questions", scores[language])
    (first, fifth), unstemmed = scores["Russian"]["full_text"], scores["English"]["full_text"]
    # Plain BM25 over whole passages has 0.80 and 0.92.
    assert first >= 0.85
    assert fifth >= 0.94
    assert first >= unstemmed[0] + 0.05
    assert fifth >= unstemmed[1] + 0.03
    assert scores["Russian"]["hybrid"][0] > first
    assert scores["Russian"]["hybrid"][1] > fifth
