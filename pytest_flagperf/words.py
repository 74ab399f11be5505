"""The words of the vocabulary that are markers, and the keys of the state on pytest's ``config.stash``.

Imported at every start of pytest: constants only.
"""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING

import pytest


if TYPE_CHECKING:
    from pytest_flagperf.operators.measuring import Workers
    from pytest_flagperf.reports.progress import Progress
    from pytest_flagperf.session import Session


PRECISIONS = ("fp64", "fp32", "tf32", "amp", "bf16", "fp16", "fp8", "int8")
FRAMEWORKS = ("pytorch", "paddle", "mindspore")
KINDS = ("training", "inference", "operator")
ROLES = {
    "convergence": "train from initial weights until every target is met",
    "throughput": "run a fixed number of steps after a warm-up; of inference the whole dataset, several times over",
    "single_stream": "LoadGen's SingleStream: the next query when the last one is answered",
    "multi_stream": "LoadGen's MultiStream: queries of eight samples, one after the other",
    "server": "LoadGen's Server: queries arrive at random, the answers within a bound of latency",
    "offline": "LoadGen's Offline: all samples in one query",
    "edge": "one sample at a time, with few threads; memory counts",
    "generation": "text from a prompt: time to the first token, time for each further one",
}
TRAINING_ROLES = ("convergence", "throughput")
# What executes a model in inference, beside those that other packages bring by an entry point.
ENGINES = (
    *("eager", "inductor", "aotinductor", "onnxruntime", "openvino", "paddle_inference", "mindir"),
    *("tensorrt", "torch_tensorrt", "xtcl", "ixrt", "magicmind", "cann", "macart"),
    *("vllm", "sglang", "openai"),
)
SCALES = ("lite", "full")

# Of operators. The element types are those of FlagPerf's list that are no precision of a model.
ELEMENT_TYPES = ("int16", "int32", "int64")
FAMILIES = (
    "gemm",
    "conv",
    "rnn",
    "sparse",
    "all_reduce",
    "memory",
    "interconnect",
    "computation",
    "operator_list",
)
SETS = ("train", "inference_server", "inference_device", "flagperf", "smoke")
DIRECTIONS = ("fwd", "bwd_data", "bwd_weights", "bwd")

SESSION: pytest.StashKey[Session] = pytest.StashKey()
PROGRESS: pytest.StashKey[Progress] = pytest.StashKey()
WORKERS: pytest.StashKey[Workers] = pytest.StashKey()
_NAME = pytest.StashKey[str]()

# What an xdist worker tells its controller.
USAGE_ERROR = "flagperf_usage_error"


def register_markers(config: pytest.Config) -> None:
    """Make the words of the vocabulary markers; models become ones when they are collected."""
    for what, names in (
        ("framework", FRAMEWORKS),
        ("precision", PRECISIONS),
        ("kind", KINDS),
        ("engine", ENGINES),
        ("role", tuple(ROLES)),
        ("scale", SCALES),
        ("element type", ELEMENT_TYPES),
        ("operator family", FAMILIES),
        ("set of problems", SETS),
        ("direction", DIRECTIONS),
    ):
        for name in names:
            config.addinivalue_line("markers", f"{name}: FlagPerf {what}")
    config.addinivalue_line(
        "markers", "default_engines(*names): FlagPerf: engines that a test of inference runs by where none is asked for"
    )


def session_name(config: pytest.Config) -> str:
    """``<time>-<id>``, one for a pytest session; xdist workers get their controller's."""
    if _NAME not in config.stash:
        given = getattr(config, "workerinput", {}).get("flagperf_session")
        config.stash[_NAME] = given or f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
    return config.stash[_NAME]
