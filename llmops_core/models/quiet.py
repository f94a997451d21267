"""Keeps model libraries from writing progress bars and advice to standard error.

Standard error belongs to the commands' own progress; errors come as exceptions.
"""

import os


def quiet_libraries() -> None:
    """Silence transformers in this process: no progress bars, errors alone."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else a fork later on makes tokenizers warn
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
