"""The decoder after an error: it goes on if the model does, and says so if not."""

import queue
import shutil
from pathlib import Path
from typing import Any

import pytest

from llmops_core.engines.chat import Delta, GenerationParams, Message
from llmops_engine.decoder import Decoder, Job

MODEL = "smollm2-135m-instruct"


@pytest.fixture
def decoder(models: Path, tmp_path: Path) -> Decoder:
    """With a model of random weights that takes no time to load."""
    from transformers import LlamaConfig, LlamaForCausalLM

    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(models / MODEL / name, tmp_path / name)
    config = LlamaConfig(
        vocab_size=49152, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    decoder = Decoder(tmp_path, "tiny", "cpu")
    decoder.loaded.result(120)
    return decoder


class Failing:
    """A model that fails this many times, as one on a device that is out of order."""

    device = "cpu"

    def __init__(self, model: Any, times: int) -> None:
        self._model = model
        self._times = times

    def __call__(self, **inputs: Any) -> Any:
        self._times -= 1
        if self._times >= 0:
            raise RuntimeError("CUDA error: device-side assert triggered")
        return self._model(**inputs)


def _answer(decoder: Decoder) -> list[Delta | Exception | None]:
    """All that comes for a question."""
    came: queue.Queue[Delta | Exception | None] = queue.Queue()
    decoder.submit(Job("tiny", [Message("user", "Why?")], GenerationParams(2, 0.0, 1.0), came.put))
    items: list[Delta | Exception | None] = []
    while not items or isinstance(items[-1], Delta):
        items.append(came.get(timeout=120))
    return items


def test_an_error_that_passes_costs_one_answer(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "_model", Failing(decoder._model, times=1))
    assert "device-side assert" in str(_answer(decoder)[-1])
    assert _answer(decoder)[-1] is None
    assert not decoder.broken.done()


def test_an_error_that_stays_breaks_the_decoder(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "_model", Failing(decoder._model, times=1_000))
    assert "device-side assert" in str(_answer(decoder)[-1])
    assert "device-side assert" in str(decoder.broken.result(120))
