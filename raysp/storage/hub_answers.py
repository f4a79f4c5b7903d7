"""Answers of the Hugging Face hub: bounds on their bytes, and no progress bars in files.

It imports huggingface_hub, so callers import it only where they ask the hub.
"""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from huggingface_hub import constants, utils

from raysp import bounds

_library: Any = utils  # its types do not export these public functions
_CHUNK_BYTES = 1 << 16


class _Budget:
    """Hook of an HTTP client that reads answers of the API within a number of bytes. Files are left to streaming."""

    def __init__(self) -> None:
        self._left = bounds.MOST_ANSWERS_BYTES

    def __call__(self, response: Any, *_: object, **__: object) -> None:  # noqa: ANN401 - of httpx or requests
        api_path = urlsplit(constants.ENDPOINT).path.rstrip("/") + "/api/"
        if not urlsplit(str(response.url)).path.startswith(api_path):
            return
        body = bytearray()
        stream = getattr(response, "iter_bytes", None) or response.iter_content  # of httpx or requests
        for chunk in stream(_CHUNK_BYTES):
            body += chunk
            self._left -= len(chunk)
            if self._left < 0:
                response.close()
                raise bounds.TooLargeError(
                    f"the hub's answers have more than {bounds.MOST_ANSWERS_BYTES:,} bytes, the most allowed"
                )
        response._content = bytes(body)
        response._content_consumed = True  # requests has this flag


@contextlib.contextmanager
def bounded_answers() -> Iterator[None]:
    """Bound the bytes that the hub's API answers to the requests within the block.

    Raises:
        TooLargeError: the answers have more bytes.
    """
    session = _library.get_session()
    hooks = "event_hooks" if hasattr(session, "event_hooks") else "hooks"  # of httpx, or of requests
    before = dict(getattr(session, hooks))
    setattr(session, hooks, {**before, "response": [_Budget(), *before["response"]]})
    try:
        yield
    finally:
        setattr(session, hooks, before)


@contextlib.contextmanager
def no_bars_without_terminal() -> Iterator[None]:
    """Disable progress bars, which the library shows for cached files too, unless on a terminal."""
    if sys.stderr.isatty() or _library.are_progress_bars_disabled():
        yield
        return
    _library.disable_progress_bars()
    try:
        yield
    finally:
        _library.enable_progress_bars()
