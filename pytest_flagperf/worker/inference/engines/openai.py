"""A server that speaks OpenAI's completions, such as vLLM's or SGLang's: it serves the model, this measures it.

The server is the user's, started with the same weights; where it is, ``openai_base_url`` of the configuration says or
``OPENAI_BASE_URL``, and ``OPENAI_API_KEY`` has its key. Standard library only.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from http.client import HTTPException
from http.client import HTTPResponse
from http.client import HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.worker.inference.engine import BaseEngine
from pytest_flagperf.worker.inference.engine import CompileOptions
from pytest_flagperf.worker.inference.engines.serving import TYPES
from pytest_flagperf.worker.inference.engines.serving import Stream
from pytest_flagperf.worker.inference.engines.serving import scores
from pytest_flagperf.worker.inference.engines.serving import together
from pytest_flagperf.worker.inference.generator import Generated
from pytest_flagperf.worker.inference.generator import Generator


URL_VARIABLE = "OPENAI_BASE_URL"
KEY_VARIABLE = "OPENAI_API_KEY"
# Seconds that a server may be silent.
PATIENCE = 60.0
MOST_SAID = 500


class OpenAi(BaseEngine):
    """Client of a running server. In which precision it computes it does not tell: ``output_error`` shows."""

    name = "openai"
    precisions = tuple(TYPES)

    def compile(self, model: Any, workload: Any, options: CompileOptions) -> OpenAiGenerator:
        """See :class:`~pytest_flagperf.worker.inference.engine.Engine`; the server is asked for its models."""
        settings = options.settings
        url = str(settings.get("openai_base_url") or os.environ.get(URL_VARIABLE, ""))
        if not url:
            raise ConfigurationError(
                f"engine openai needs a running server: set {URL_VARIABLE}, or openai_base_url of the configuration, "
                "to such as http://127.0.0.1:8000/v1"
            )
        server = Server(url, os.environ.get(KEY_VARIABLE, ""), float(settings.get("openai_timeout", PATIENCE)))
        return OpenAiGenerator(server, server.model(str(settings.get("openai_model", ""))), workload)


class Server:
    """Where it is and how it is asked. The key is in no message: what the server says is cut, and searched for it."""

    def __init__(self, url: str, key: str, patience: float) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise ConfigurationError(
                "openai_base_url is wanted as http://HOST:PORT/v1, without user, password and query: the key belongs "
                f"into {KEY_VARIABLE}"
            )
        self.url, self.host, self.port = url, parts.hostname, parts.port
        self.kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self.path, self.key, self.patience = parts.path.rstrip("/"), key, patience

    def connection(self) -> HTTPConnection:
        """One that is open. Raises ``ConfigurationError`` where nobody answers."""
        found = self.kind(self.host, self.port, timeout=self.patience)
        try:
            found.connect()
        except OSError as error:
            raise ConfigurationError(f"no server answers at {self.url}: {error}. Start it before the tests") from error
        return found

    def model(self, wanted: str) -> str:
        """The name of the model that it serves. Raises ``ConfigurationError`` where that is not clear."""
        connection = self.connection()
        try:
            with self.asked(connection, "GET", "/models", None) as answer:
                served = [str(one["id"]) for one in self.read(answer)["data"]]
        finally:
            connection.close()
        if wanted in served or (not wanted and len(served) == 1):
            return wanted or served[0]
        raise ConfigurationError(
            f"the server at {self.url} serves {', '.join(served) or 'no model'}: set openai_model to one of them"
        )

    def asked(self, connection: HTTPConnection, method: str, path: str, body: Any) -> HTTPResponse:
        """The answer, whose body is still to come. Raises ``InvalidMeasurement`` for one that is an error."""
        headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        sent = None if body is None else json.dumps(body)

        def exchange() -> HTTPResponse:
            connection.request(method, self.path + path, sent, headers)
            return connection.getresponse()

        answer: HTTPResponse = self.patiently(exchange)
        if answer.status != 200:
            said = self.cut(self.patiently(answer.read).decode("utf-8", "replace"))
            hint = f" Its key is read from {KEY_VARIABLE}." if answer.status in (401, 403) else ""
            raise InvalidMeasurement(f"the server at {self.url} answered {answer.status} to {path}: {said}{hint}")
        return answer

    def read(self, answer: HTTPResponse) -> Any:
        """A whole answer of JSON."""
        return self.parsed(self.patiently(answer.read))

    def parsed(self, text: bytes) -> Any:
        """JSON of the server's. Raises ``InvalidMeasurement`` for anything else, and for an error in it."""
        try:
            found = json.loads(text)
        except ValueError as error:
            said = self.cut(text.decode("utf-8", "replace"))
            raise InvalidMeasurement(f"the server at {self.url} answered with what is no JSON: {said}") from error
        if not isinstance(found, dict) or found.get("error"):
            said = self.cut(json.dumps(found))
            raise InvalidMeasurement(f"the server at {self.url} answered with an error: {said}")
        return found

    def events(self, answer: HTTPResponse) -> Iterator[dict[str, Any]]:
        """Each event of a stream, until it says that it is done. Raises ``InvalidMeasurement`` where it breaks off."""
        while line := self.patiently(answer.readline):
            name, _, content = line.strip().partition(b":")
            if name != b"data":
                continue
            if content.strip() == b"[DONE]":
                return
            yield self.parsed(content)
        raise InvalidMeasurement(f"the server at {self.url} broke off in the middle of an answer")

    def patiently(self, call: Callable[[], Any]) -> Any:
        """What the connection gives. Raises ``InvalidMeasurement`` for silence and for an end."""
        try:
            return call()
        except TimeoutError as error:
            raise InvalidMeasurement(
                f"the server at {self.url} said nothing for {self.patience:g} s (openai_timeout)"
            ) from error
        except (OSError, HTTPException) as error:
            raise InvalidMeasurement(
                f"the server at {self.url} broke off in the middle of an answer: {type(error).__name__}"
            ) from error

    def cut(self, said: str) -> str:
        """What may be shown of what it says."""
        return (said.replace(self.key, "***") if self.key else said)[:MOST_SAID]


class OpenAiGenerator(Generator):
    """As many connections as requests, each opened before the clock runs; all requests are sent at once."""

    name = "openai"
    elsewhere = True

    def __init__(self, server: Server, model: str, workload: Any) -> None:
        super().__init__(workload.new_tokens, workload.vocabulary)
        self.server, self.model = server, model

    def generate(self, prompts: Any, new_tokens: int) -> Generated:
        """See :class:`~pytest_flagperf.worker.inference.generator.Generator`."""
        began: list[float] = []
        gate = threading.Barrier(len(prompts), action=lambda: began.append(time.perf_counter()))
        connections: list[HTTPConnection] = []
        try:
            for _ in prompts:
                connections.append(self.server.connection())
            with ThreadPoolExecutor(len(prompts)) as pool:
                try:
                    waiting = [
                        pool.submit(self._streamed, connection, prompt, new_tokens, gate, began)
                        for connection, prompt in zip(connections, prompts.tolist(), strict=True)
                    ]
                except RuntimeError as error:
                    # Those that wait for one that never comes would wait for ever.
                    gate.abort()
                    raise InvalidMeasurement(
                        f"engine openai cannot send {len(prompts)} requests at once: {error}. Lower batch_sizes"
                    ) from error
                streams = [one.result() for one in waiting]
        finally:
            for one in connections:
                one.close()
        return together(self.name, streams, new_tokens)

    def _streamed(
        self,
        connection: HTTPConnection,
        prompt: list[int],
        new_tokens: int,
        gate: threading.Barrier,
        began: list[float],
    ) -> Stream:
        body = {
            **self._greedy(prompt, new_tokens),
            "stream": True,
            "stream_options": {"include_usage": True},
            # Both are extensions, of vLLM and SGLang: a text cannot be taken apart into the tokens that it was made of.
            "ignore_eos": True,
            "return_token_ids": True,
        }
        try:
            gate.wait(self.server.patience)
        except threading.BrokenBarrierError as error:
            raise InvalidMeasurement(
                f"not all requests of a batch were ready to be sent within {self.server.patience:g} s (openai_timeout)"
            ) from error
        stream, counted, cached = Stream(began[0]), None, 0
        with self.server.asked(connection, "POST", "/completions", body) as answer:
            for event in self.server.events(answer):
                usage = event.get("usage") or {}
                counted = usage.get("completion_tokens", counted)
                cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or cached
                for choice in event.get("choices", ()):
                    stream.add(self._tokens(choice))
        if cached:
            raise InvalidMeasurement(
                f"the server at {self.server.url} had {cached} of a prompt's {len(prompt)} tokens in its cache, and "
                "did not read them: start it without a cache of prefixes (vLLM: --no-enable-prefix-caching, SGLang: "
                "--disable-radix-cache)"
            )
        if counted is None or int(counted) != len(stream.tokens):
            raise InvalidMeasurement(
                f"the server at {self.server.url} counts {counted} tokens in its usage, {len(stream.tokens)} came"
            )
        return stream

    def _tokens(self, choice: Mapping[str, Any]) -> list[int]:
        told = choice.get("token_ids")
        if told is None and choice.get("text"):
            raise InvalidMeasurement(
                f"the server at {self.server.url} does not tell which tokens it generated (return_token_ids): vLLM "
                "does from 0.10.2 on. Without them nobody knows whether they are right"
            )
        return [int(token) for token in told or ()]

    def _greedy(self, prompt: list[int], new_tokens: int) -> dict[str, Any]:
        return {"model": self.model, "prompt": prompt, "max_tokens": new_tokens, "temperature": 0}

    def score(self, tokens: Any) -> Any:
        """See :class:`~pytest_flagperf.worker.inference.generator.Generator`; text by text."""
        return np.array([self._scored(one) for one in tokens.tolist()], np.float32)

    def _scored(self, text: list[int]) -> list[float]:
        connection = self.server.connection()
        body = {**self._greedy(text, 1), "echo": True, "logprobs": 1}
        try:
            with self.server.asked(connection, "POST", "/completions", body) as answer:
                (choice,) = self.server.read(answer)["choices"]
        finally:
            connection.close()
        return scores(self.name, (choice.get("logprobs") or {}).get("token_logprobs") or [], text)

    def precision(self) -> dict[str, Any]:
        """Whom it asked."""
        return {"server": self.server.url, "model": self.model}
