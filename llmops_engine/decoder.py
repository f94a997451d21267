"""Decodes with transformers, on one thread, one sequence at a time.

One thread, because two threads with different adapters on one model give wrong answers; a batch of one, because then the
tokens at temperature 0 do not depend on what else is asked.
"""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmops_core.engines.chat import Delta, GenerationParams, Message, Usage
from llmops_core.errors import ContextOverflowError, NotFoundError

# A token may be half a character; it is held back until the text that it belongs to is whole.
REPLACEMENT = "\ufffd"


@dataclass
class Job:
    """One answer under way; `emit` is called from the decoding thread, and ends with None or an error."""

    model: str
    messages: Sequence[Message]
    params: GenerationParams
    emit: Callable[[Delta | Exception | None], None]
    cancelled: threading.Event = field(default_factory=threading.Event)


class Decoder:
    """Owns the model and the thread that runs it."""

    def __init__(self, folder: Path, name: str, device: str) -> None:
        self._folder = folder
        self._device = device
        self.name = name
        self.adapters: dict[str, str] = {}
        """Adapter name → folder."""
        self.context_window = 0
        self._queue: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self.loaded: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="decoder", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue an answer."""
        self._queue.put(lambda: self._answer(job))

    def load_adapter(self, name: str, folder: str) -> Future[None]:
        """Load a LoRA adapter between two answers."""
        return self._call(lambda: self._load_adapter(name, folder))

    def unload_adapter(self, name: str) -> Future[None]:
        """Forget an adapter; raises `NotFoundError` in the future."""
        return self._call(lambda: self._unload_adapter(name))

    def _call(self, work: Callable[[], None]) -> Future[None]:
        future: Future[None] = Future()

        def run() -> None:
            try:
                work()
            except Exception as error:  # handed to whoever waits for the future
                future.set_exception(error)
            else:
                future.set_result(None)

        self._queue.put(run)
        return future

    def _run(self) -> None:
        try:
            self._load()
        except BaseException as error:
            self.loaded.set_exception(error)
            return
        self.loaded.set_result(None)
        while (work := self._queue.get()) is not None:
            work()

    def _load(self) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        device = self._device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self._tokenizer: Any = AutoTokenizer.from_pretrained(self._folder)
        self._model: Any = AutoModelForCausalLM.from_pretrained(self._folder, dtype=torch.bfloat16).to(device).eval()
        self.context_window = int(self._model.config.max_position_embeddings)
        ends = self._model.generation_config.eos_token_id
        self._end_tokens = {int(t) for t in (ends if isinstance(ends, list) else [ends]) if t is not None}
        if self._tokenizer.eos_token_id is not None:
            self._end_tokens.add(int(self._tokenizer.eos_token_id))

    def _load_adapter(self, name: str, folder: str) -> None:
        from peft import PeftModel

        if isinstance(self._model, PeftModel):
            self._model.load_adapter(folder, adapter_name=name)
        else:
            self._model = PeftModel.from_pretrained(self._model, folder, adapter_name=name).eval()
        self.adapters[name] = folder

    def _unload_adapter(self, name: str) -> None:
        if name not in self.adapters:
            raise NotFoundError(f"There is no adapter {name!r}.")
        self._model.delete_adapter(name)
        del self.adapters[name]
        if not self.adapters:
            self._model = self._model.unload()

    def _answer(self, job: Job) -> None:
        try:
            for delta in self._decode(job):
                job.emit(delta)
            job.emit(None)
        except Exception as error:  # handed to the request that waits for this answer
            job.emit(error)

    def _decode(self, job: Job) -> Iterator[Delta]:
        """Decode greedily or by sampling; texts come out as soon as they are whole characters."""
        import torch

        prompt = self._tokenizer.apply_chat_template(
            [{"role": m.role, "content": m.content} for m in job.messages],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )["input_ids"].to(self._model.device)
        prompt_tokens = int(prompt.shape[1])
        if prompt_tokens + job.params.max_tokens > self.context_window:
            raise ContextOverflowError(
                f"This model's maximum context length is {self.context_window} tokens; the messages take"
                f" {prompt_tokens} and max_tokens is {job.params.max_tokens}."
            )
        if job.params.temperature > 0:
            torch.manual_seed(job.params.seed if job.params.seed is not None else torch.seed() & 0x7FFFFFFF)
        text = _Text(self._tokenizer, job.params.stop)
        finish_reason = "length"
        with torch.inference_mode(), self._adapter_of(job.model):
            inputs, cache = prompt, None
            for _ in range(job.params.max_tokens):
                if job.cancelled.is_set():
                    return
                output = self._model(input_ids=inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
                cache = output.past_key_values
                token = _next_token(output.logits[0, -1], job.params)
                if token in self._end_tokens:
                    finish_reason = "stop"
                    break
                piece = text.push(token)
                if piece:
                    yield Delta(piece)
                if text.stopped:
                    finish_reason = "stop"
                    break
                inputs = torch.tensor([[token]], device=prompt.device)
        rest = text.rest()
        yield Delta(rest, finish_reason, Usage(prompt_tokens, text.count))

    def _adapter_of(self, model: str) -> Any:
        """The context in which the asked-for adapter, or none, is active."""
        from contextlib import nullcontext

        if model in self.adapters:
            self._model.set_adapter(model)
            return nullcontext()
        return self._model.disable_adapter() if self.adapters else nullcontext()


class _Text:
    """Turns tokens into text, holding back half characters and what may become a stop string."""

    def __init__(self, tokenizer: Any, stop: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._stop = [s for s in stop if s]
        self._tokens: list[int] = []
        self._sent = 0
        self.stopped = False

    @property
    def count(self) -> int:
        """Tokens so far."""
        return len(self._tokens)

    def push(self, token: int) -> str:
        """Take a token and give the text that is certain now."""
        self._tokens.append(token)
        text = self._tokenizer.decode(self._tokens, skip_special_tokens=True)
        found = min((i for i in (text.find(s, 0) for s in self._stop) if i >= 0), default=-1)
        if found >= 0:
            self.stopped = True
            return self._send(text, found)
        if text.endswith(REPLACEMENT):
            return ""
        held = max((n for s in self._stop for n in range(1, len(s)) if text.endswith(s[:n])), default=0)
        return self._send(text, len(text) - held)

    def rest(self) -> str:
        """What was held back and is certain at the end."""
        if self.stopped:
            return ""
        text = self._tokenizer.decode(self._tokens, skip_special_tokens=True)
        return self._send(text, len(text))

    def _send(self, text: str, end: int) -> str:
        piece, self._sent = text[self._sent : end], max(self._sent, end)
        return piece


def _next_token(logits: Any, params: GenerationParams) -> int:
    """The most probable token, or one sampled from the smallest set with probability `top_p` (Holtzman et al., 2020)."""
    import torch

    if params.temperature == 0:
        return int(torch.argmax(logits))
    probabilities = torch.softmax(logits.float() / params.temperature, dim=-1)
    if params.top_p < 1:
        ordered, order = torch.sort(probabilities, descending=True)
        outside = torch.cumsum(ordered, dim=-1) - ordered >= params.top_p
        probabilities = probabilities.clone()
        probabilities[order[outside]] = 0
    return int(torch.multinomial(probabilities / probabilities.sum(), 1))
