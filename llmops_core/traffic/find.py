"""Finds a logged request wherever its row is: on this disk, in what other machines have shipped, or in Iceberg.

In this order, the way of a row, so that one that moves on meanwhile is met.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmops_core.errors import NotFoundError, SpoolError
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.traffic.elsewhere import find_on_disk, find_shipped, unreadable
from llmops_core.traffic.folder import spool_folders
from llmops_core.traffic.ingested import find_request


@dataclass
class Sought:
    """A look for a request: what has been looked through, and what could not be."""

    request_id: str
    gateways: set[str] = field(default_factory=set)
    """Gateways whose spools on this disk were read: what they have shipped is there, too, until the table has it."""
    trouble: SpoolError | None = None

    def on_disk(self, spool: Path) -> dict[str, Any] | None:
        """The row's JSON if it is in a spool of this disk, those of `gateways` left out."""
        try:
            folders = spool_folders(spool)
        except OSError as error:
            folders, self.trouble = [], unreadable(error)
        for folder in folders:
            if folder.name in self.gateways:
                continue
            try:
                found = find_on_disk([folder], self.request_id)
            except SpoolError as error:
                self.trouble = error
                continue
            if found is not None:
                return found
            self.gateways.add(folder.name)
        return None

    def in_lakehouse(self, lakehouse: Lakehouse, assistants: Collection[str]) -> dict[str, Any]:
        """The row's JSON from shipped segments or Iceberg.

        Raises `NotFoundError`; `SpoolError` instead if a spool of this disk could not be read.
        """
        filesystem, root = lakehouse.spool()
        for assistant in assistants:
            table = lakehouse.table(assistant, "traffic_requests")
            found = find_shipped(table, filesystem, root, assistant, self.request_id, but=self.gateways)
            if found is not None:
                return found
            ingested = find_request(table, self.request_id)
            if ingested is not None:
                return ingested.to_payload()
        if self.trouble:
            raise self.trouble
        raise NotFoundError(
            f"There is no request {self.request_id!r} in the log. The id is `id` of the answer and its x-request-id header. One"
            " that a gateway on another machine answered is there some seconds later: try again."
        )
