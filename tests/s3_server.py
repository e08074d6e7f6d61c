"""An S3 server on this machine that can be told to fail, to dawdle and to lose its replies."""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

MOST_IN_A_ROW = 2
"""How often one request fails at most before it is answered, so that trying again helps."""

_LONGEST_SILENCE = 60  # seconds

_ERROR = "<?xml version='1.0'?><Error><Code>{}</Code><Message>injected</Message></Error>"
_FAULTS = {"500": ("500 Error", "InternalError"), "503": ("503 Error", "SlowDown")}


class FaultyServer:
    """The S3 of moto behind a WSGI layer with faults.

    A share of the requests is answered by HTTP 500 or 503 and not carried out; of others the reply
    is lost: they are carried out and answered by HTTP 500 all the same. Some are slow.
    """

    def __init__(self) -> None:
        self._app = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()
        # moto looks and then writes; one request at a time makes its conditional put atomic
        self._turn = threading.Lock()
        self._speaks = threading.Event()
        self._speaks.set()
        self.reset()
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def reset(self) -> None:
        """Answer everything, and forget what was asked."""
        with self._lock:
            self.seen: Counter[str] = Counter()  # requests and faults by kind
            self._share, self._left, self._random = 0.0, -1, random.Random(0)
            self._in_a_row: Counter[Any] = Counter()
            self._loses: Callable[[dict[str, Any]], bool] = lambda environ: False

    @contextlib.contextmanager
    def failing_now_and_then(self, share: float, *, seed: int) -> Iterator[None]:
        """Fail a share of the requests, lose the replies to some more, and be slow at as many."""
        self.reset()
        self._share, self._random = share, random.Random(seed)
        yield
        self._share = 0.0

    @contextlib.contextmanager
    def dead(self, *, after: int = 0) -> Iterator[None]:
        """Answer nothing but HTTP 500 after some more requests."""
        self.reset()
        self._left = after
        yield
        self._left = -1

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        """Take every request and answer none, until this ends."""
        self.reset()
        self._speaks.clear()
        try:
            yield
        finally:
            self._speaks.set()

    @contextlib.contextmanager
    def losing_replies(self, which: Callable[[dict[str, Any]], bool]) -> Iterator[None]:
        """Carry out the requests that fit, and answer each by HTTP 500 the first time."""
        self.reset()
        self._loses = which
        yield
        self.reset()

    def _fault(self, environ: dict[str, Any]) -> str:
        """Choose what goes wrong with a request: nothing, "500", "503", "lost" or "slow"."""
        names = ("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "HTTP_RANGE")
        request = tuple(environ.get(name) for name in names)
        with self._lock:
            self.seen["requests"] += 1
            if self._left == 0:
                return "500"
            self._left -= self._left > 0
            fault = ""
            if self._loses(environ) and not self._in_a_row[request]:
                fault = "lost"
            elif self._random.random() < self._share:
                fault = self._random.choice(["500", "503", "lost", "slow"])
                if fault != "slow" and self._in_a_row[request] == MOST_IN_A_ROW:
                    fault = ""
            self._in_a_row[request] = self._in_a_row[request] + 1 if fault else 0
            return fault

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        fault = self._fault(environ)
        self.seen[fault] += 1
        if not self._speaks.is_set():
            self._speaks.wait(_LONGEST_SILENCE)
            fault = "500"  # whoever asked is gone, and nothing is to be done for them
        if fault == "slow":
            time.sleep(0.05)
        # a body that is not read would be taken for the next request on the same connection
        if fault in _FAULTS:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        else:
            with self._turn:
                body = b"".join(self._app(environ, start_response if fault != "lost" else _ignore))
            if fault != "lost":
                return [body]
        status, code = _FAULTS.get(fault, _FAULTS["500"])
        content = b"" if environ["REQUEST_METHOD"] == "HEAD" else _ERROR.format(code).encode()
        start_response(status, [("Content-Length", str(len(content)))])
        return [content]

    def stop(self) -> None:
        """End the server."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _ignore(status: str, headers: Any, exc_info: Any = None) -> Callable[[bytes], None]:
    return lambda content: None
