"""The gateway's address."""

import pytest

from llmops_core.errors import ConfigError
from llmops_gateway.server import bind


def test_an_address_that_is_bound_is_taken_although_nothing_is_served_yet() -> None:
    with bind("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ConfigError, match=f"Port {port} on 127"):
            bind("127.0.0.1", port)
