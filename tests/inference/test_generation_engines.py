"""Engines that serve: a client against a server on loopback, and adapters over modules with the functions of theirs.

vLLM and SGLang were not executed here: docs/reference/engines.md says so.
"""

from __future__ import annotations

import math
import types
from typing import Any

import numpy as np
import pytest

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.worker.inference import registry
from tests.conftest import ROOT
from tests.inference.engine_bench import options
from tests.inference.engine_bench import put
from tests.inference.openai_server import MODEL
from tests.inference.openai_server import Server


PROMPTS = np.array([[1, 2, 3], [7, 8, 9]])
WORKLOAD = types.SimpleNamespace(new_tokens=4, vocabulary=100, lengths=[3])


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
        ("miscounts", "counts 5 tokens in its usage, 4 came"),
    ],
)
def test_a_server_that_fails_is_told_with_its_reason(client, fault, reason):
    with Server(counted, halves, fault=fault) as server, pytest.raises(InvalidMeasurement, match=reason):
        client(server).answered(PROMPTS, 4)


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
        folder.mkdir(parents=True)
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
        tokens = counted(input_ids, sampling_params["max_new_tokens"])
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
    assert (given["dtype"], given["context_length"], given["disable_radix_cache"]) == ("bfloat16", 7, True)
    assert generator.answered(PROMPTS, 4).tokens.tolist() == [[4, 5, 6, 7], [10, 11, 12, 13]]
    assert generator.score(PROMPTS).tolist() == [[-0.25, -0.25], [-0.25, -0.25]]
    assert generator.precision() == {"parameters": "bfloat16"}
    engine = generator.engine
    generator.release()
    assert engine.over


def test_probabilities_that_an_engine_keeps_to_itself_are_missed(monkeypatch, tmp_path):
    put(monkeypatch, "sglang", Engine=Engine)
    monkeypatch.setattr(Engine, "likelihoods", False)
    generator = compiled("sglang", tmp_path)
    with pytest.raises(InvalidMeasurement, match="told the probability of 0 of a text's 3 tokens"):
        generator.score(PROMPTS)
    generator.release()
