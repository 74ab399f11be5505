"""Paddle's and MindSpore's kernels, each framework in an interpreter of its own: pytest never imports two of them."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT


PACKAGES = {"paddle": "cpu", "mindspore": "CPU"}


def marked(framework: str) -> Any:
    """The framework as a parameter, with its marker; left out where it is not installed."""
    missing = pytest.mark.skipif(importlib.util.find_spec(framework) is None, reason=f"{framework} is not installed")
    return pytest.param(framework, marks=[getattr(pytest.mark, framework), missing])


pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize("framework", [marked(framework) for framework in PACKAGES]),
]

# What every script starts with; it answers with one JSON value.
PRELUDE = """
import importlib, json, sys
from pathlib import Path
from pytest_flagperf.launch.context import RankContext
from pytest_flagperf.operators import problems
from pytest_flagperf.worker.operators import allocating, engine
from pytest_flagperf.worker.operators.request import Request

package = importlib.import_module("pytest_flagperf.worker.operators.{framework}")
context = RankContext(Path("case.json"), Path("."), 0, 0, 1)
framework = package.Framework(context, {{"device": {{"device": "{device}"}}}})

GEMMS = [problems.Gemm(m=24, n=40, k=56, a_transposed=a, b_transposed=b) for a in (False, True) for b in (False, True)]
CONVOLUTION = problems.Convolution(
    w=13, h=11, c=6, n=3, k=8, filter_w=3, filter_h=5, pad_w=1, pad_h=2, stride_w=2, stride_h=1
)
CELLS = [problems.Recurrent(cell=cell, hidden=24, batch=3, timesteps=7) for cell in ("vanilla", "lstm", "gru")]
LISTED = json.loads(Path({problems!r}).read_text())["problems"]
OPERATORS = [problems.from_json({{"family": "operator", **each}}) for each in LISTED if "smoke" in each["sets"]]

def ask(problem, precision="fp32", direction="fwd"):
    request = Request(7, problem, precision, direction, budget=0.01, warmup=0.0, least=2, most=4, seed=3)
    return engine.answer(framework, request)

def answer(value):
    Path("answer.json").write_text(json.dumps(value, allow_nan=False))
"""


def run(script: str, framework: str, directory: Path) -> Any:
    """What the script answers."""
    listed = str(ROOT / "suites" / "operators" / "problems" / "operator.json")
    prelude = PRELUDE.format(framework=framework, device=PACKAGES[framework], problems=listed)
    (directory / "script.py").write_text(prelude + script, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOG_v": "4"}
    done = subprocess.run(
        [sys.executable, "script.py"],
        check=False,
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((directory / "answer.json").read_text(encoding="utf-8"))


def test_every_family_is_right_in_fp32_in_every_direction(framework, tmp_path):
    replies = run(
        """
replies = [ask(problem) for problem in [*GEMMS, problems.Computation(m=64, n=64, k=64)]]
for problem in [CONVOLUTION, *CELLS]:
    replies += [ask(problem, "fp32", direction) for direction in problem.directions]
answer(replies)
""",
        framework,
        tmp_path,
    )
    assert len(replies) == 5 + 4 * 3
    for reply in replies:
        assert reply["status"] == "measured", reply
        assert 0 < reply["figures"]["max_relative_error"] <= reply["error_bound"]
        assert reply["figures"]["time"] > 0
        assert reply["data"]["nonzero"] > 0.99
        assert all(name == "float32" for key, name in reply["precision"].items() if key in ("a", "x", "result"))


def test_every_operator_of_flagperfs_list_is_right_or_refused_in_the_frameworks_words(framework, tmp_path):
    replies = run(
        """
answer([
    [operator.name, dtype, direction, reply["status"], reply.get("message", "")]
    for operator in OPERATORS
    for dtype in operator.dtypes
    for direction in operator.directions
    for reply in [ask(operator, dtype, direction)]
])
""",
        framework,
        tmp_path,
    )
    assert {name for name, *_ in replies if name} >= {"abs", "triu", "cross_entropy_loss"}
    assert not [reply for reply in replies if reply[3] not in ("measured", "unsupported")]
    assert all(message for *_, status, message in replies if status == "unsupported")
    forward = {name for name, dtype, direction, status, _ in replies if direction == "fwd" and status == "measured"}
    # The other two would be timed with something that is not the operator.
    assert len(forward) == 50
    refused = {name: message for name, _, way, _, message in replies if way == "fwd" and name not in forward}
    assert set(refused) == {"all", "native_dropout"}
    assert all("would be timed with it" in message for message in refused.values())


def test_labels_have_the_frameworks_type_before_the_clock_starts(framework, tmp_path):
    script = 'answer(ask(next(one for one in OPERATORS if one.name == "cross_entropy_loss")))'
    reply = run(script, framework, tmp_path)
    labels = {"paddle": "int64", "mindspore": "int32"}[framework]
    assert (reply["status"], reply["precision"]["in1"]) == ("measured", labels)
    assert any("labels are" in note for note in reply["notes"]) == (labels != "int64")


def test_what_is_not_there_is_unsupported_and_says_why(framework, tmp_path):
    replies = run(
        """
answer([
    ask(GEMMS[0], "tf32"),
    ask(GEMMS[0], "amp"),
    ask(GEMMS[0], "fp16"),
    ask(GEMMS[0], "bf16"),
    ask(GEMMS[0], "int8"),
    ask(problems.SparseGemm(m=96, n=5, k=64, sparsity=0.9)),
    ask(problems.AllReduce(elements=1000)),
])
""",
        framework,
        tmp_path,
    )
    assert [reply["status"] for reply in replies] == ["unsupported"] * 7
    assert all(len(reply["message"]) > 20 for reply in replies)


def test_wrong_kernels_are_found_in_every_family(framework, tmp_path):
    statuses = run(
        """
import numpy as np
library = type(framework._library)
found = {}

def sabotaged(name, wrong, *asked):
    original = getattr(library, name)
    def replaced(self, *given, **named):
        return wrong(lambda *g, **n: original(self, *g, **n), *given, **named)
    setattr(library, name, replaced)
    found[" ".join([name, asked[0].id, *asked[1:]])] = ask(*asked)["status"]
    setattr(library, name, original)

square = problems.Gemm(m=48, n=48, k=48)
sabotaged("matmul", lambda original, left, right, tl=False, tr=False: original(left, right, not tl, tr), square)
sabotaged("matmul", lambda original, *given, **named: original(*given, **named) * 0, GEMMS[0], "fp32", "fwd")
sabotaged("convolution", lambda original, x, f, s, p: original(x, f, s, (p[1], p[0])), CONVOLUTION)
sabotaged("convolution", lambda original, x, f, s, p: original(x, f[:, :, :, ::-1], s, p), CONVOLUTION, "fp32", "fwd")
sabotaged("relu", lambda original, x: x, CELLS[0])
sabotaged("sigmoid", lambda original, x: original(x) * original(x), CELLS[1])
sabotaged("tanh", lambda original, x: original(x + x), CELLS[2])
# A vanilla layer has one gate: there is nothing to put in another order.
for cell in CELLS[1:]:
    sabotaged("concatenate", lambda original, parts: original(parts[::-1]), cell, "fp32", "bwd_data")
for cell in CELLS:
    sabotaged("matmul", lambda original, *given, **named: original(*given, **named) * 1.01, cell, "fp32", "bwd_weights")

def flipped(original, which, *given):
    call = original(which, *given)
    return lambda: call()[:, :, :, ::-1]
for direction in ("bwd_data", "bwd_weights"):
    sabotaged("convolution_gradient", flipped, CONVOLUTION, "fp32", direction)

# A call that leaves the first answer where it was.
for kind, problem in ((allocating.GemmKernel, GEMMS[0]), (allocating.RecurrentForward, CELLS[1])):
    original = kind.run
    kind.run = lambda self: None if getattr(self, "done", False) else (setattr(self, "done", True), original(self))
    found["stale " + problem.family] = ask(problem)["status"]
    kind.run = original

for name in ("sub", "softmax", "sum", "mm"):
    operator = next(operator for operator in OPERATORS if operator.name == name)
    original = library.operators[name]
    library.operators[name] = lambda x, given: original(x, given) * 1.01
    found["operator " + name] = ask(operator)["status"]
    library.operators[name] = original

original = allocating.ArrayKernel.take
allocating.ArrayKernel.take = lambda self, name, array, dtype: original(self, name, np.zeros_like(array), dtype)
for problem in (GEMMS[0], CONVOLUTION, CELLS[0]):
    found["zeros " + problem.family] = ask(problem)["status"]
answer(found)
""",
        framework,
        tmp_path,
    )
    assert len(statuses) > 18
    assert {name: status for name, status in statuses.items() if status != "wrong"} == {}


def test_operators_that_are_nearly_right_and_reductions_of_a_part_are_found(framework, tmp_path):
    statuses = run(
        """
library = type(framework._library)
found = {}

def instead(label, name, wrong):
    operator = next(operator for operator in OPERATORS if operator.name == name)
    right = ask(operator)["status"]
    original = library.operators[name]
    library.operators[name] = lambda x, given: wrong(original, x, given)
    found[label] = [right, ask(operator)["status"]]
    library.operators[name] = original

for name in ("abs", "neg", "add", "mul", "reciprocal", "exp", "tanh", "silu", "outer"):
    instead(name, name, lambda original, x, given: original(x, given) * 1.0001)
for name in ("max", "min"):
    instead(name + " first half", name, lambda original, x, given: original([x[0][:64]], given))
    instead(name + " second half", name, lambda original, x, given: original([x[0][64:]], given))
for name in ("amax", "argmax"):
    instead(name + " first half", name, lambda original, x, given: original([x[0][:, :512]], given))
instead("sum but eight", "sum", lambda original, x, given: original([x[0].reshape([-1])[:-8]], given))
instead("prod half", "prod", lambda original, x, given: original([x[0][:64]], given))
answer(found)
""",
        framework,
        tmp_path,
    )
    assert len(statuses) == 17
    assert {label: each for label, each in statuses.items() if each != ["measured", "wrong"]} == {}
