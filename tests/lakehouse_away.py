"""A lakehouse that cannot be reached: neither its catalog nor its files are where they were."""

from collections.abc import Iterator
from contextlib import contextmanager

from llmops_core.settings import Settings


@contextmanager
def lakehouse_away(settings: Settings) -> Iterator[None]:
    """Away within the block, for processes that have it open as well."""
    aside = settings.lakehouse.with_name("aside")
    settings.lakehouse.rename(aside)
    # Else whoever opens it would make an empty one.
    settings.lakehouse.write_text("")
    try:
        yield
    finally:
        settings.lakehouse.unlink()
        aside.rename(settings.lakehouse)
