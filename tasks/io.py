"""Nodes for the queue ``io``: they wait for others, many in the threads of one process."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx

from celerypipe import Bytes, Message, Proc


class FetchUrl(Proc):
    """Fetches what a URL names, by HTTP GET.

    Takes the URL as text, or an Object with ``url``. Sends :class:`Bytes`; ``meta`` gains ``url`` (after redirects),
    ``status`` and ``content_type``.

    It fetches whatever its worker can reach, the private network included: give it URLs you trust.

    ``timeout``: seconds for one fetch from name lookup to last byte, redirects included; TimeoutError after that
    ``limit``: bytes; ValueError for more, without reading on
    ``redirects``: how many are followed; ValueError for more

    Raises ValueError for a URL that is not http or https or an answer other than 2xx, and ConnectionError when
    nobody answers.
    """

    version = "1"

    def __init__(self, timeout: float = 10.0, limit: int = 10_000_000, redirects: int = 5) -> None:
        if timeout <= 0 or limit < 1 or redirects < 0:
            raise ValueError(f"timeout: {timeout!r}, limit: {limit!r}, redirects: {redirects!r}; at least 0, 1 and 0")
        self.timeout = timeout
        self.limit = limit
        self.redirects = redirects

    def warmup(self) -> None:
        """Make the client, whose connections stay open between messages."""
        # An event loop of the node's own: only a cancelled task ends a fetch that trickles in byte by byte, and a
        # worker's thread cannot be interrupted from outside.
        self.loop = asyncio.Runner()
        self.client = httpx.AsyncClient(
            follow_redirects=True,
            max_redirects=self.redirects,
            timeout=self.timeout,
            headers={"Accept-Encoding": "identity"},
        )

    def update(self, message: Message) -> Message:
        """Fetch one URL."""
        url = wanted(message.payload)
        shown = url.copy_with(username=None, password=None)
        try:
            with message.timeit("fetch"):
                response, content = self.loop.run(self._fetch(url))
        except (TimeoutError, httpx.TimeoutException):
            raise TimeoutError(
                f"{shown}: not here after {self.timeout:g} s; raise 'timeout' if it may take longer"
            ) from None
        except httpx.TooManyRedirects:
            raise ValueError(
                f"{shown}: more than {self.redirects} redirects; raise 'redirects' or correct it"
            ) from None
        except httpx.UnsupportedProtocol:
            raise ValueError(f"{shown}: leads to a URL that is not http or https; correct it") from None
        except httpx.TransportError as error:
            raise ConnectionError(
                f"{shown}: {error or type(error).__name__}; is the address right, the server up?"
            ) from error
        return message.with_changes(
            payload=Bytes(content),
            meta={
                **message.meta,
                "url": str(response.url.copy_with(username=None, password=None)),
                "status": response.status_code,
                "content_type": response.headers.get("content-type", ""),
            },
        )

    def destroy(self) -> None:
        """Close the connections."""
        if "loop" in self.__dict__:
            with self.loop as loop:
                loop.run(self.client.aclose())
            del self.loop

    async def _fetch(self, url: httpx.URL) -> tuple[httpx.Response, bytes]:
        async with asyncio.timeout(self.timeout), self.client.stream("GET", url) as response:
            if not response.is_success:
                raise ValueError(f"{response.url.host} answered {response.status_code} {response.reason_phrase}")
            content = bytearray()
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > self.limit:
                    raise ValueError(f"{response.url.host} sends more than {self.limit} bytes; raise 'limit'")
            return response, bytes(content)


def wanted(payload: Any) -> httpx.URL:
    """Return the URL that a payload holds; TypeError or ValueError when it holds none."""
    text = payload.get("url") if isinstance(payload, Mapping) else payload
    if not isinstance(text, str):
        raise TypeError(f"FetchUrl takes a text, or an Object with 'url', not {type(payload).__name__}")
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise ValueError(f"{text!r} is no URL: {error}; write https://host/path") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"{text!r} is no http or https URL; write https://host/path")
    return url
