"""Decodes with transformers, on one thread, one sequence at a time.

One thread, because two threads with different adapters on one model give wrong answers; a batch of one, because then the
tokens at temperature 0 do not depend on what else is asked.
"""

import queue
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmops_core.engines.chat import Delta, GenerationParams, Message, Usage
from llmops_core.errors import (
    ContextOverflowError,
    InvalidRequestError,
    LlmopsError,
    ModelError,
    NotFoundError,
)
from llmops_core.models.device import compute_dtype
from llmops_engine.chat_tokens import ChatTokens
from llmops_engine.text import TextStream


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
        self._queue: queue.Queue[Callable[[], None]] = queue.Queue()
        self.loaded: Future[None] = Future()
        self.broken: Future[Exception] = Future()
        """Resolves if the model can answer nothing any more: after some errors CUDA fails until the process ends."""
        self._thread = threading.Thread(target=self._run, name="decoder", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue an answer."""
        self._queue.put(lambda: self._answer(job))

    def load_adapter(self, name: str, folder: str) -> Future[None]:
        """Load a LoRA adapter between two answers.

        The future raises `InvalidRequestError` if the name is taken, `ModelError` if the adapter does not fit.
        """
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
        while not self.broken.done():
            self._queue.get()()

    def _load(self) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        device = self._device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self._tokenizer: Any = AutoTokenizer.from_pretrained(self._folder)
        self._chat_tokens = ChatTokens(self._tokenizer)
        # In two steps: the weights are bfloat16, also where the computation is not.
        model = AutoModelForCausalLM.from_pretrained(self._folder, dtype=torch.bfloat16)
        self._model: Any = model.to(device, compute_dtype(device)).eval()
        self.context_window = int(self._model.config.max_position_embeddings)
        ends = self._model.generation_config.eos_token_id
        self._end_tokens = {int(t) for t in (ends if isinstance(ends, list) else [ends]) if t is not None}
        if self._tokenizer.eos_token_id is not None:
            self._end_tokens.add(int(self._tokenizer.eos_token_id))

    def _load_adapter(self, name: str, folder: str) -> None:
        from peft import PeftConfig, PeftModel

        if name == self.name or name in self.adapters:
            raise InvalidRequestError(f"The lora adapter '{name}' has already been loaded.")
        try:
            if not self.adapters:
                config = PeftConfig.from_pretrained(folder)
                config.inference_mode = True
                self._model = PeftModel(self._model, config, adapter_name=name).eval()
            missed = self._model.load_adapter(folder, adapter_name=name)
            if missed.missing_keys or missed.unexpected_keys:
                raise ValueError(
                    f"its weights are for other layers: {(missed.unexpected_keys or missed.missing_keys)[:3]}"
                )
        except Exception as error:  # peft raises whatever its parts raise; all of it means that the files do not fit
            self._remove(name)
            raise ModelError(f"The adapter in {folder} does not fit {self.name}: {error}") from error
        self.adapters[name] = folder

    def _unload_adapter(self, name: str) -> None:
        if name not in self.adapters:
            raise NotFoundError(f"The lora adapter '{name}' cannot be found.")
        del self.adapters[name]
        self._remove(name)

    def _remove(self, name: str) -> None:
        """Take an adapter's weights out of the model, and peft's layers with the last."""
        from peft import PeftModel

        if not isinstance(self._model, PeftModel):
            return
        if not self.adapters:
            self._model = self._model.unload()
        elif name in self._model.peft_config:
            self._model.delete_adapter(name)

    def _answer(self, job: Job) -> None:
        try:
            for delta in self._decode(job):
                job.emit(delta)
            job.emit(None)
        except Exception as error:  # handed to the request that waits for this answer
            job.emit(error)
            if isinstance(error, LlmopsError):
                return
            traceback.print_exc()
        else:
            return
        # Outside of the handler, so that what the answer had in memory is free again.
        self._try_model()

    def _try_model(self) -> None:
        """Find out whether the model still computes."""
        import torch

        try:
            with torch.inference_mode():
                logits = self._model(input_ids=torch.zeros((1, 1), dtype=torch.long, device=self._model.device)).logits
                logits.sum().item()  # waits for the device
        except Exception as error:  # whatever a device raises
            self.broken.set_result(error)

    def _prompt(self, job: Job) -> list[int]:
        """The tokens of the messages; raises `ContextOverflowError` if the answer does not fit behind them."""
        tokens = self._chat_tokens.encode(job.messages)
        if len(tokens) + job.params.max_tokens > self.context_window:
            raise ContextOverflowError(
                f"This model's maximum context length is {self.context_window} tokens; the messages take"
                f" {len(tokens)} and max_tokens is {job.params.max_tokens}."
            )
        return tokens

    def _decode(self, job: Job) -> Iterator[Delta]:
        """Decode greedily or by sampling; texts come out as soon as they are whole characters."""
        import torch

        if job.cancelled.is_set():
            return
        tokens = self._prompt(job)
        if job.params.temperature > 0:
            torch.manual_seed(job.params.seed if job.params.seed is not None else torch.seed() & 0x7FFFFFFF)
        text = TextStream(self._tokenizer, job.params.stop)
        finish_reason = "length"
        with torch.inference_mode(), self._adapter_of(job.model):
            inputs, cache = torch.tensor([tokens], device=self._model.device), None
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
                inputs = torch.tensor([[token]], device=self._model.device)
        yield Delta(text.rest(), finish_reason, Usage(len(tokens), text.count))

    def _adapter_of(self, model: str) -> AbstractContextManager[Any]:
        """The context in which the asked-for adapter, or none, is active."""
        if model in self.adapters:
            self._model.set_adapter(model)
            return nullcontext()
        if model != self.name:
            raise NotFoundError(f"The model '{model}' does not exist.")
        disabled: AbstractContextManager[Any] = self._model.disable_adapter() if self.adapters else nullcontext()
        return disabled


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
