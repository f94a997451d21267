"""What loaded releases share."""

import gc
import weakref

from llmops_core.answering.loaded import ModelPool
from llmops_core.models.revisions import embedder_revision
from llmops_core.release.manifest import EmbedderPin
from llmops_core.settings import Settings


def test_a_model_is_shared_and_let_go_of_with_its_last_holder(home_with_models: Settings) -> None:
    pool = ModelPool(home_with_models)
    pin = EmbedderPin(model="minilm", revision=embedder_revision(home_with_models, "minilm"))
    held = pool.embedder(pin)
    assert pool.embedder(pin) is held
    look = weakref.ref(held)
    del held
    gc.collect()
    assert look() is None
