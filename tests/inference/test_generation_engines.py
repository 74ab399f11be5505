"""Engines that serve: a client against a server on loopback, and adapters over modules with the functions of theirs.

vLLM and SGLang were not executed here: docs/reference/engines.md says so.
"""

from __future__ import annotations

import math
import resource
import threading
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.worker.inference import registry
from pytest_flagperf.worker.inference.engines import openai
from tests.conftest import ROOT
from tests.inference.engine_bench import options
from tests.inference.engine_bench import put
from tests.inference.openai_server import MODEL
from tests.inference.openai_server import Server


PROMPTS = np.array([[1, 2, 3], [7, 8, 9]])
WORKLOAD = types.SimpleNamespace(new_tokens=4, vocabulary=100, lengths=[3], positions=16)


def counted(prompt: list[int], new_tokens: int) -> list[int]:
    """Counts on from a prompt's last token."""
    return [prompt[-1] + 1 + place for place in range(new_tokens)]


def halves(text: list[int]) -> list[float]:
    return [math.log(0.5)] * (len(text) - 1)


def test_every_engine_that_generates_is_written_with_how_it_was_tested():
    page = (ROOT / "docs" / "reference" / "engines.md").read_text()
    section = page.partition("## That generate")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:-1] for line in section.splitlines() if line.startswith("| `")]
    assert {row[0].strip().strip("`") for row in rows} == {engine for _, engine in registry.GENERATORS}
    for row in rows:
        one = registry.load("pytorch", row[0].strip().strip("`"), "generation")
        assert row[1].strip() == ", ".join(one.precisions)


# ------------------------------------------------------------------------------------------------------------- openai


@pytest.fixture
def client(tmp_path, monkeypatch):
    """The engine, compiled against a server."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    def client(server: Server, **settings: Any) -> Any:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        engine = registry.load("pytorch", "openai", "generation")
        wanted = options(tmp_path, precision="fp32", settings={"openai_timeout": 0.5, **settings})
        return engine.compile(None, WORKLOAD, wanted)  # type: ignore[arg-type]

    return client


def test_a_server_is_asked_for_all_prompts_at_once_and_each_token_has_its_time(client):
    with Server(counted, halves, delay=0.02) as server:
        generator = client(server)
        found = generator.answered(PROMPTS, 4)
        assert found.tokens.tolist() == [[4, 5, 6, 7], [10, 11, 12, 13]]
        # No token can be there before it was sent.
        assert (found.times >= 0.02 * np.arange(1, 5)).all()
        assert generator.score(PROMPTS) == pytest.approx(np.full((2, 2), math.log(0.5)))
        assert generator.precision() == {"server": server.url, "model": MODEL}
    streamed = [one for one in server.asked if one.get("stream")]
    assert sorted(one["prompt"] for one in streamed) == PROMPTS.tolist()
    assert {(one["max_tokens"], one["temperature"], one["ignore_eos"]) for one in streamed} == {(4, 0, True)}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("dies", "broke off in the middle of an answer"),
        ("hangs", r"said nothing for 0\.5 s \(openai_timeout\)"),
        ("error", "answered 500 to /completions: .*no memory is left for the key-value cache"),
        ("short", "engine openai generated 3 of the 4 tokens that request 1 of 2 asked for: .* cut short"),
        ("untold", "does not tell which tokens it generated"),
        ("caches", r"had 2 of a prompt's 3 tokens in its cache.* --no-enable-prefix-caching"),
        ("miscounts", "counts 5 tokens in its usage, 4 came"),
    ],
)
def test_a_server_that_fails_is_told_with_its_reason(client, fault, reason):
    with Server(counted, halves, fault=fault) as server, pytest.raises(InvalidMeasurement, match=reason):
        client(server).answered(PROMPTS, 4)


def test_requests_that_cannot_all_be_sent_do_not_wait_for_each_other_for_ever(client, monkeypatch):
    gates: list[threading.Barrier] = []

    class Gate(threading.Barrier):
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            gates.append(self)

    class OneThread(ThreadPoolExecutor):
        """Where the machine has no second one left."""

        def submit(self, *given: Any, **named: Any) -> Any:
            if self._threads:
                raise RuntimeError("can't start new thread")
            return super().submit(*given, **named)

    monkeypatch.setattr(threading, "Barrier", Gate)
    monkeypatch.setattr(openai, "ThreadPoolExecutor", OneThread)
    said: list[str] = []

    def ask(generator: Any) -> None:
        try:
            generator.answered(PROMPTS, 4)
        except InvalidMeasurement as error:
            said.append(str(error))

    with Server(counted, halves) as server:
        # Longer than the test waits: nothing but an end of the waiting ends it.
        thread = threading.Thread(target=ask, args=(client(server, openai_timeout=600.0),))
        thread.start()
        thread.join(30)
        waited = thread.is_alive()
        for gate in gates:
            gate.abort()
        thread.join()
    assert not waited
    assert said == ["engine openai cannot send 2 requests at once: can't start new thread. Lower batch_sizes"]


def test_a_request_that_waits_for_the_others_in_vain_gives_up(client):
    with Server(counted, halves) as server:
        generator = client(server)
        connection = generator.server.connection()
        gate = threading.Barrier(2)
        # Where it does not give up by itself the test is to fail, and not to hang.
        ended = threading.Timer(30, gate.abort)
        ended.start()
        try:
            with pytest.raises(InvalidMeasurement, match=r"not all requests .* within 0\.5 s \(openai_timeout\)"):
                generator._streamed(connection, [1, 2, 3], 4, gate, [])
        finally:
            ended.cancel()
            connection.close()
        assert not any(one.get("stream") for one in server.asked)


def test_a_key_is_sent_and_never_said(client, monkeypatch):
    with Server(counted, halves, key="right-key") as server:
        generator = client(server)
        monkeypatch.setenv("OPENAI_API_KEY", "right-key")
        assert client(server).answered(PROMPTS, 4).tokens.shape == (2, 4)
        with pytest.raises(InvalidMeasurement, match=r"answered 401 .*Its key is read from OPENAI_API_KEY"):
            generator.answered(PROMPTS, 4)
        # This server repeats what it was given.
        monkeypatch.setenv("OPENAI_API_KEY", "wrong-key")
        with pytest.raises(InvalidMeasurement, match="answered 401") as caught:
            client(server).answered(PROMPTS, 4)
    assert "wrong-key" not in str(caught.value)
    assert "***" in str(caught.value)


def test_a_server_that_is_not_there_or_serves_something_else_says_what_to_do(client, monkeypatch, tmp_path):
    with Server(counted, halves) as server:
        with pytest.raises(ConfigurationError, match=f"serves {MODEL}: set openai_model to one of them"):
            client(server, openai_model="large-llama")
        gone = server
    with pytest.raises(ConfigurationError, match=r"no server answers at .* Start it before the tests"):
        client(gone)
    engine = registry.load("pytorch", "openai", "generation")
    monkeypatch.delenv("OPENAI_BASE_URL")
    with pytest.raises(ConfigurationError, match="engine openai needs a running server: set OPENAI_BASE_URL"):
        engine.compile(None, WORKLOAD, options(tmp_path))  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="without user, password and query") as caught:
        client(types.SimpleNamespace(url="http://me:secret@127.0.0.1:1/v1"))
    assert "secret" not in str(caught.value)


# ------------------------------------------------------------------------------------------------------ vLLM, SGLang


class Model:
    """What is exported: transformers' save_pretrained, and nothing else of it."""

    def __init__(self) -> None:
        self.language_model = self

    def generate(self) -> None:
        """It is only looked for."""

    def save_pretrained(self, folder: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"12345")


def compiled(name: str, directory: Any, **settings: Any) -> Any:
    engine: Any = registry.load("pytorch", name, "generation")
    assert engine.available() == ""
    wanted = options(directory, precision="bf16", settings=settings)
    folder = engine.export(Model(), WORKLOAD, wanted)
    return engine.compile(Model(), WORKLOAD, options(directory, precision="bf16", settings=settings, exported=folder))


class Asked:
    """Keyword arguments, as attributes."""

    def __init__(self, **given: Any) -> None:
        self.__dict__.update(given)


class AsyncLLM:
    """vLLM's, which counts on; as theirs it gives what is new."""

    model_config = Asked(dtype="torch.bfloat16")
    short = False

    @classmethod
    def from_engine_args(cls, given: Asked) -> AsyncLLM:
        found = cls()
        found.given, found.over = given, False
        return found

    async def generate(self, prompt: Any, sampling_params: Asked, request_id: str) -> Any:
        assert sampling_params.output_kind == "DELTA"
        ids = prompt["prompt_token_ids"]
        told = getattr(sampling_params, "prompt_logprobs", None)
        likelihoods = None if told is None else [None, *({one: Asked(logprob=-0.5)} for one in ids[1:])]
        for token in counted(ids, sampling_params.max_tokens - self.short):
            yield Asked(outputs=[Asked(token_ids=[token])], prompt_logprobs=likelihoods)
            likelihoods = None

    def shutdown(self) -> None:
        self.over = True


@pytest.fixture
def vllm(monkeypatch):
    put(monkeypatch, "vllm", SamplingParams=Asked)
    put(monkeypatch, "vllm.inputs", TokensPrompt=dict)
    put(monkeypatch, "vllm.sampling_params", RequestOutputKind=Asked(DELTA="DELTA"))
    put(monkeypatch, "vllm.engine.arg_utils", AsyncEngineArgs=Asked)
    put(monkeypatch, "vllm.v1.engine.async_llm", AsyncLLM=AsyncLLM)
    monkeypatch.setenv("VLLM_NO_USAGE_STATS", "")


def test_vllm_gets_the_model_and_gives_tokens_with_their_times(vllm, tmp_path):
    generator = compiled("vllm", tmp_path, vllm_memory=0.5)
    given = generator.engine.given
    assert (given.dtype, given.max_model_len, given.gpu_memory_utilization) == ("bfloat16", 7, 0.5)
    # A prompt that came before would cost nothing otherwise.
    assert given.enable_prefix_caching is False
    assert generator.size_bytes == 5
    found = generator.answered(PROMPTS, 4)
    assert found.tokens.tolist() == [[4, 5, 6, 7], [10, 11, 12, 13]]
    assert generator.score(PROMPTS).tolist() == [[-0.5, -0.5], [-0.5, -0.5]]
    assert generator.precision() == {"parameters": "torch.bfloat16"}
    engine = generator.engine
    generator.release()
    assert engine.over


def test_vllm_that_stops_early_is_refused(vllm, tmp_path, monkeypatch):
    monkeypatch.setattr(AsyncLLM, "short", True)
    generator = compiled("vllm", tmp_path)
    with pytest.raises(InvalidMeasurement, match="engine vllm generated 3 of the 4 tokens"):
        generator.answered(PROMPTS, 4)
    generator.release()


class Engine:
    """SGLang's, which counts on; chunks repeat what came before, as in some of its versions."""

    repeats = True
    likelihoods = True

    def __init__(self, **given: Any) -> None:
        self.given, self.over = given, False

    async def async_generate(self, input_ids: Any, sampling_params: Any, stream: bool = False, **wanted: Any) -> Any:
        context, new_tokens = self.given["context_length"], sampling_params["max_new_tokens"]
        if len(input_ids) + new_tokens >= context:
            raise ValueError(f"Requested token count exceeds the model's maximum context length of {context} tokens")
        tokens = counted(input_ids, min(new_tokens, context - 1 - len(input_ids) - 1))
        if not stream:
            assert wanted == {"return_logprob": True, "logprob_start_len": 0}
            told = [(None, input_ids[0], None), *((-0.25, one, None) for one in input_ids[1:])]
            return {"meta_info": {"input_token_logprobs": told if self.likelihoods else told[:1]}}

        async def chunks() -> Any:
            for count in range(1, len(tokens) + 1):
                new = tokens[:count] if self.repeats else tokens[count - 1 : count]
                yield {"output_ids": new, "meta_info": {"completion_tokens": count}}

        return chunks()

    def get_server_info(self) -> dict[str, Any]:
        return {"dtype": self.given["dtype"]}

    def shutdown(self) -> None:
        self.over = True


@pytest.mark.parametrize("repeats", [True, False])
def test_sglang_gets_the_model_and_gives_tokens_with_their_times(monkeypatch, tmp_path, repeats):
    put(monkeypatch, "sglang", Engine=Engine)
    monkeypatch.setattr(Engine, "repeats", repeats)
    generator = compiled("sglang", tmp_path)
    given = generator.engine.given
    assert (given["dtype"], given["context_length"], given["disable_radix_cache"]) == ("bfloat16", 15, True)
    assert generator.answered(PROMPTS, 4).tokens.tolist() == [[4, 5, 6, 7], [10, 11, 12, 13]]
    assert generator.score(PROMPTS).tolist() == [[-0.25, -0.25], [-0.25, -0.25]]
    assert generator.precision() == {"parameters": "bfloat16"}
    engine = generator.engine
    generator.release()
    assert engine.over


def test_sglang_that_would_need_more_positions_than_the_model_has_says_so(monkeypatch, tmp_path):
    put(monkeypatch, "sglang", Engine=Engine)
    monkeypatch.setattr(WORKLOAD, "positions", 14)
    message = "engine sglang needs room for 8 tokens .*: 15 of the model's 14. Lower prompt_lengths or new_tokens"
    with pytest.raises(ConfigurationError, match=message):
        compiled("sglang", tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_the_copy_of_the_weights_is_gone_once_they_are_read(vllm, tmp_path, monkeypatch):
    there = []

    def read(given: Asked) -> AsyncLLM:
        there.extend(path.name for path in Path(given.model).iterdir())
        return AsyncLLM()

    monkeypatch.setattr(AsyncLLM, "from_engine_args", read)
    generator = compiled("vllm", tmp_path)
    assert sorted(there) == ["config.json", "model.safetensors"]
    assert [path.name for path in generator.folder.iterdir()] == ["config.json"]
    generator.release()


def test_the_copy_of_the_weights_is_gone_where_the_engine_does_not_start(vllm, tmp_path, monkeypatch):
    def read(given: Asked) -> AsyncLLM:
        raise ValueError("no free memory for the key-value cache")

    monkeypatch.setattr(AsyncLLM, "from_engine_args", read)
    with pytest.raises(ValueError, match="no free memory"):
        compiled("vllm", tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_weights_that_do_not_fit_on_the_disk_say_so_and_leave_nothing(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")

    class Large(Model):
        def save_pretrained(self, folder: Any) -> None:
            numpy.save_file({"weights": np.zeros(2**20, np.float32)}, folder / "model.safetensors")

    path = tmp_path / "model" / "model.safetensors"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))
    try:
        with pytest.raises(ConfigurationError, match=rf"{path} cannot be written: File too large\. Make room there"):
            registry.load("pytorch", "vllm", "generation").export(Large(), WORKLOAD, options(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_probabilities_that_an_engine_keeps_to_itself_are_missed(monkeypatch, tmp_path):
    put(monkeypatch, "sglang", Engine=Engine)
    monkeypatch.setattr(Engine, "likelihoods", False)
    generator = compiled("sglang", tmp_path)
    with pytest.raises(InvalidMeasurement, match="told the probability of 0 of a text's 3 tokens"):
        generator.score(PROMPTS)
    generator.release()
