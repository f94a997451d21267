"""`llmops quickstart`: the main job once, end to end, on the sample assistant or any other."""

import time
from dataclasses import dataclass
from typing import Any

import click
from openai import OpenAI

from llmops_cli.build import build
from llmops_cli.context import assistant_option, json_option, reports_errors
from llmops_cli.evaluate import evaluate
from llmops_cli.gateway_process import client, gateway, reports_refusals
from llmops_cli.output import emit, facts, place, progress
from llmops_cli.runs import run_job
from llmops_core.assistant import Assistant
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.models.store import pull
from llmops_core.release.registry import Releases
from llmops_core.settings import Settings, load_settings

# Four conversations, five questions: the third is streamed, the last has a second turn.
CONVERSATIONS = (
    ("How do I turn assert statements off?",),
    ("What does the pass statement do?",),
    ("What happens if I modify a list while I loop over it with for?",),
    ("What is a lambda expression?", "Can it contain statements?"),
)
STREAMED = 2


@dataclass(frozen=True)
class Asked:
    """A question that was answered over HTTP."""

    question: str
    answer: str
    request_id: str
    sources: tuple[str, ...]
    streamed: bool


@click.command()
@assistant_option
@json_option
@reports_errors
def command(assistant: Any, as_json: bool) -> None:
    """Build, serve, ask five questions, give feedback, ingest the log and evaluate; ends with a summary."""
    started = time.monotonic()
    settings, chosen = load_settings(), assistant()
    _headline("Models")
    pull(settings, None, lambda line: progress.print(f"    {line}", style="dim"))
    _headline("Build: documents → chunks → embeddings → vector index → release")
    built = build(settings, chosen)
    _headline("Serve: five questions over HTTP with the openai client, then feedback")
    with gateway(settings, chosen.name) as url, reports_refusals(), client(url) as asking:
        asked = _ask_all(asking, chosen.name)
        _give_feedback(asking, asked)
    _headline("Request log into Iceberg")
    ingested = run_job(settings, chosen, "traffic_ingest").assets
    report = None
    if chosen.evaluation.cases:
        _headline("Evaluate: retrieval on all cases, answers on some")
        report = evaluate(settings, chosen)
    release = Releases(Lakehouse.open(settings), chosen.name).get("prod")
    value = {
        "assistant": chosen.name,
        "build": built,
        "release": {"release_id": release.release_id, "number": release.number},
        "questions": [vars(a) for a in asked],
        "logged": {noun: ingested[f"traffic/{noun}"]["new_rows"] for noun in ("requests", "feedback")},
        "evaluation": report.summary() if report else None,
        "seconds": round(time.monotonic() - started, 1),
    }
    emit(value, _summary(settings, chosen, value, report.table() if report else "no cases"), as_json=as_json)


def _ask_all(client: OpenAI, model: str) -> list[Asked]:
    asked = []
    for number, questions in enumerate(CONVERSATIONS):
        messages: list[dict[str, str]] = []
        for question in questions:
            messages.append({"role": "user", "content": question})
            done = _ask(client, model, messages, streamed=number == STREAMED)
            messages.append({"role": "assistant", "content": done.answer})
            asked.append(done)
            progress.print(f"    Q {question}\n    A {' '.join(done.answer.split())}", style="dim")
    return asked


def _ask(client: OpenAI, model: str, messages: list[Any], *, streamed: bool) -> Asked:
    if streamed:
        text = ""
        extension: dict[str, Any] = {}
        for chunk in client.chat.completions.create(model=model, messages=messages, stream=True):
            text += chunk.choices[0].delta.content or "" if chunk.choices else ""
            extension = (chunk.model_extra or {}).get("llmops", extension)
    else:
        completion = client.chat.completions.create(model=model, messages=messages)
        text = completion.choices[0].message.content or ""
        extension = (completion.model_extra or {})["llmops"]
    cited = (chunk for chunk in extension["chunks"] if chunk["cited"])
    sources = tuple(place(chunk["document_id"], chunk["char_start"], chunk["char_end"]) for chunk in cited)
    return Asked(messages[-1]["content"], text, extension["request_id"], sources, streamed)


def _give_feedback(client: OpenAI, asked: list[Asked]) -> None:
    for thumbs, answer in zip((1, -1), asked, strict=False):
        client.post("/feedback", cast_to=object, body={"request_id": answer.request_id, "thumbs": thumbs})


def _headline(text: str) -> None:
    progress.print(text, style="bold")


def _summary(settings: Settings, assistant: Assistant, value: dict[str, Any], scores: str) -> str:
    questions = "\n".join(
        f"  Q {a['question']}{'   (streamed)' if a['streamed'] else ''}\n  A {' '.join(a['answer'].split())}\n"
        f"    sources: {'; '.join(a['sources']) or 'none cited'}\n    request: {a['request_id']}"
        for a in value["questions"]
    )
    what = {
        "documents": f"{value['build']['documents']} ({value['build']['rejected']} rejected)",
        "chunks": f"{value['build']['chunks']} ({value['build']['embedded']} embedded now)",
        "index": value["build"]["index_version"],
        "release": f"{value['release']['number']} ({value['release']['release_id']}) on prod",
        "log": f"{value['logged']['requests']} requests and {value['logged']['feedback']} feedback rows now in Iceberg",
        "time": f"{value['seconds']} s",
    }
    folder = assistant.folder
    return f"""
{assistant.name}
{facts(what)}

Answers (a model of 135M parameters is quick and not clever; set generator in assistant.yaml to a better one)
{questions}

Scores
{scores}

Where to look next
  make dev                        the Dagster UI on http://127.0.0.1:3000 and the gateway on :{settings.port}
  .venv/bin/llmops ask "…"        one question, logged
  .venv/bin/llmops init NAME --docs DIR   an assistant of your own documents
  {folder / "assistant.yaml"}     what can be set
  {settings.home}     all data and models"""
