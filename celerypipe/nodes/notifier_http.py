"""``notifier_http``: a sink that posts each message to an HTTP endpoint."""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urljoin, urlsplit

from celerypipe.contract.contract import Sink
from celerypipe.message.message import Message
from celerypipe.nodes.parts.arguments import choice, number, whole
from celerypipe.nodes.parts.delivery import BusyError, address, deliver, is_here, shown

if TYPE_CHECKING:
    import httpx

#: Statuses below 500 that mean "not now": request timeout, too many requests.
NOT_NOW = frozenset({408, 429})


class NotifierHttp(Sink):
    """Posts each message as JSON (``Message.to_dict``, juturna's keys) and waits for the answer.

    Any 2xx is success. No connection, no answer in time, 5xx, 408 and 429 are tried again, waiting at least as long as
    ``Retry-After`` says (at most 30 s); every other status fails at once with a ValueError. When all tries failed:
    ConnectionError. A message whose answer was lost may arrive twice, with the same ``id``. After juturna's node of the
    same mark, which did not wait for the answer.

    ``endpoint``: URL to post to
    ``timeout``: seconds for connecting and for each wait for data
    ``content_type``: ``"application/json"`` or ``"text/plain"``; the content is the same
    ``retries``: further tries after the first
    ``backoff``: seconds before the second try; doubled each time, with jitter
    """

    def __init__(
        self,
        endpoint: str = "http://localhost:8080",
        timeout: float = 20.0,
        content_type: Literal["application/json", "text/plain"] = "application/json",
        retries: int = 3,
        backoff: float = 0.2,
    ) -> None:
        self.endpoint = address(endpoint, ("http", "https"))
        self.timeout = number("timeout", timeout, at_least=0.001)
        self.content_type = choice("content_type", content_type, ("application/json", "text/plain"))
        self.retries = whole("retries", retries)
        self.backoff = number("backoff", backoff)
        self._httpx: Any = None
        self._client: httpx.Client | None = None

    def warmup(self) -> None:
        """Make the client; it keeps its connection from message to message."""
        self._httpx = import_module("httpx")  # which is long, and each worker has this module
        self._client = self._httpx.Client(timeout=self.timeout, trust_env=not is_here(self.endpoint))
        logging.getLogger("httpx").addFilter(self._is_of_others)

    def update(self, message: Message) -> None:
        """Post the message."""
        client = self._client
        if client is None:
            raise RuntimeError("notifier_http: no client yet; call warmup() before update()")
        content = message.to_json().encode("utf-8", "backslashreplace")
        deliver(
            lambda: self._post(client, content),
            endpoint=self.endpoint,
            retries=self.retries,
            backoff=self.backoff,
            passing=(self._httpx.TransportError, BusyError),
        )

    def destroy(self) -> None:
        """Close the connection."""
        logging.getLogger("httpx").removeFilter(self._is_of_others)
        if self._client:
            self._client.close()
            self._client = None

    def _is_of_others(self, record: logging.LogRecord) -> bool:
        """Drop the line that httpx logs for each message, which has the endpoint with all that is secret in it."""
        said = record.args if isinstance(record.args, tuple) else ()
        urls = [
            each for each in said if isinstance(each, self._httpx.URL)
        ]  # a text is compared as one, which may raise
        return self._httpx.URL(self.endpoint) not in urls

    def set_on_config(self, prop: str, value: Any) -> None:
        """Post to another ``endpoint`` from the next message on."""
        if prop == "endpoint":
            self.endpoint = address(value, ("http", "https"))

    def _post(self, client: httpx.Client, content: bytes) -> None:
        response = client.post(self.endpoint, content=content, headers={"Content-Type": self.content_type})
        if response.is_success:
            return
        answer = f"answered {response.status_code} {response.reason_phrase}".rstrip()
        if response.is_server_error or response.status_code in NOT_NOW:
            asked = response.headers.get("Retry-After", "")
            raise BusyError(answer, wait=float(asked) if asked.isascii() and asked.isdigit() else 0.0)
        cure = "correct 'endpoint'"
        if response.has_redirect_location:
            place = urljoin(self.endpoint, response.headers["Location"])
            cure = f'write "endpoint": "{shown(place)}"'
            if urlsplit(place).query:
                cure += ", and behind it the ? with what followed it"
        detail = f" ({response.text[:200]!r})" if response.text else ""
        raise ValueError(f"{shown(self.endpoint)} {answer}{detail}; {cure}")
