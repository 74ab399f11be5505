"""A server on loopback that speaks as much of OpenAI's completions as the engine ``openai`` asks for. The tests' own.

``python -m tests.inference.openai_server WEIGHTS`` serves the small Llama with those weights, and prints its URL.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from http.server import ThreadingHTTPServer
from typing import Any


MODEL = "small-llama"

# What a request is answered by: a prompt and how many tokens to their ids, a text to its tokens' log-probabilities.
Continue = Callable[[list[int], int], list[int]]
Score = Callable[[list[int]], list[float]]


class Server:
    """Serves until it is left. ``fault`` says what goes wrong; ``delay`` is the time before each token, in seconds."""

    def __init__(
        self, continued: Continue, score: Score, *, fault: str = "", delay: float = 0.0, key: str = ""
    ) -> None:
        self.continued, self.score, self.fault, self.delay, self.key = continued, score, fault, delay, key
        self.over = threading.Event()
        self.asked: list[dict[str, Any]] = []
        server = self

        class Handler(Answers):
            serves = server

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def __enter__(self) -> Server:
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.05,))
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


class Answers(BaseHTTPRequestHandler):
    serves: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nothing is said on stderr."""

    def do_GET(self) -> None:
        self.whole({"data": [{"id": MODEL}]})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        given = self.headers.get("Authorization", "")
        self.serves.asked.append(asked)
        if self.serves.key and given != f"Bearer {self.serves.key}":
            self.whole({"error": {"message": f"wrong key {given}"}}, 401)
        elif self.serves.fault == "error":
            self.whole({"error": {"message": "no memory is left for the key-value cache"}}, 500)
        elif asked.get("stream"):
            self.streamed(asked)
        else:
            told = [None, *self.serves.score(asked["prompt"]), -0.5]
            self.whole({"choices": [{"text": "", "logprobs": {"token_logprobs": told}}]})

    def whole(self, body: Any, status: int = 200) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def streamed(self, asked: dict[str, Any]) -> None:
        fault, wanted = self.serves.fault, asked["max_tokens"]
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        tokens = self.serves.continued(asked["prompt"], wanted - 1 if fault == "short" else wanted)
        for number, token in enumerate(tokens):
            self.serves.over.wait(self.serves.delay)
            if number == 1 and fault == "hangs":
                self.serves.over.wait()
            if number == 1 and fault in ("hangs", "dies"):
                self.close_connection = True
                return
            told = {} if fault == "untold" else {"token_ids": [token]}
            self.event({"choices": [{"text": chr(token), **told}], "usage": None})
        counted = len(tokens) + (1 if fault == "miscounts" else 0)
        cached = {"prompt_tokens_details": {"cached_tokens": 2}} if fault == "caches" else {}
        self.event({"choices": [], "usage": {"completion_tokens": counted, **cached}})
        self.chunk(b"data: [DONE]\n\n")
        self.chunk(b"")

    def event(self, body: Any) -> None:
        self.chunk(b": keep-alive\n\ndata: " + json.dumps(body).encode() + b"\n\n")

    def chunk(self, content: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))
        self.wfile.flush()


def small_llama(path: str) -> tuple[Continue, Score]:
    """The suite's lite model with trained weights, run without a cache of keys: another way than the engines'."""
    import numpy as np
    import torch

    from suites.training.llama.network import Llama
    from suites.training.llama.test_llama import CASE

    # Requests of a batch are answered at once, each by a thread of its own.
    torch.set_num_threads(1)
    network = Llama(CASE.scales["lite"].config).eval()
    with np.load(path) as file:
        network.load_state_dict({name: torch.from_numpy(file[name]) for name in file.files})

    def continued(prompt: list[int], new_tokens: int) -> list[int]:
        tokens = list(prompt)
        with torch.inference_mode():
            for _ in range(new_tokens):
                scores = network.language_model(input_ids=torch.tensor([tokens]), use_cache=False).logits
                tokens.append(int(scores[0, -1].argmax()))
        return tokens[len(prompt) :]

    def score(text: list[int]) -> list[float]:
        with torch.inference_mode():
            found: list[float] = network(torch.tensor([text]))[0].tolist()
        return found

    return continued, score


def main(path: str) -> None:
    with Server(*small_llama(path)) as server:
        print(server.url, flush=True)
        # Until the test closes its end.
        sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1])
