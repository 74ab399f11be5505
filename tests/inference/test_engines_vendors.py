"""Engines of vendors' software, over modules with the functions of theirs: what is ours of it, and what goes wrong.

None of this was executed by a vendor's library: docs/reference/engines.md says so of each.
"""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from pytest_flagperf import words
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.worker.inference import registry
from pytest_flagperf.worker.inference.engine import BaseCompiled
from pytest_flagperf.worker.inference.engines.by_size import BySize
from pytest_flagperf.worker.inference.engines.by_size import refuse_dynamic
from tests.conftest import ROOT
from tests.inference.engine_bench import options
from tests.inference.engine_bench import put
from tests.inference.engine_bench import workload


VENDORS = ("tensorrt", "torch_tensorrt", "xtcl", "ixrt", "magicmind", "cann", "macart")


@pytest.mark.parametrize("name", VENDORS)
def test_an_engine_whose_package_is_not_here_names_itself_and_what_to_install(name):
    said = registry.load("pytorch", name).available()
    assert said.startswith(f"engine {name} needs ")
    assert "install " in said


def test_every_engine_is_written_with_what_it_is_and_how_it_was_tested():
    page = (ROOT / "docs" / "reference" / "engines.md").read_text()
    first = page.partition("## ")[0]
    rows = [line.split("|")[1:-1] for line in first.splitlines() if line.startswith("| `")]
    written = {(row[1].strip(), row[0].strip().strip("`")): row for row in rows}
    frameworks = {"PyTorch": "pytorch", "PaddlePaddle": "paddle", "MindSpore": "mindspore"}
    assert {(frameworks[framework], engine) for framework, engine in written} == set(registry.BUILT_IN)
    for (framework, engine), row in written.items():
        one = registry.load(frameworks[framework], engine)
        assert row[2].strip() == ", ".join(one.precisions), engine
        assert (one.name, one.framework) == (engine, frameworks[framework])


def test_asking_which_engines_are_here_imports_no_framework_and_no_compiler():
    code = (
        "import sys\n"
        "from pytest_flagperf.worker.inference import present, registry\n"
        "for framework, name in registry.BUILT_IN: present.look(framework, name)\n"
        "print(*sorted({'torch', 'paddle', 'mindspore', 'openvino', 'nncf', 'onnx', 'tvm'} & set(sys.modules)))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_engines_are_markers_once():
    assert len(set(words.ENGINES)) == len(words.ENGINES)


@pytest.mark.parametrize("name", VENDORS)
def test_an_engine_refuses_a_device_that_is_none_of_its_vendor_s(tmp_path, monkeypatch, name):
    engine = registry.load("pytorch", name)
    with pytest.raises(ConfigurationError, match=f"engine {name} executes on .*, not on cpu"):
        engine.compile(None, workload(), options(tmp_path, precision="fp16", exported=tmp_path))


class Model(BaseCompiled):
    size_bytes = 3

    def __init__(self, size, released):
        self.size, self.released = size, released

    def load(self, inputs):
        assert len(inputs[0]) == self.size
        self.loaded = inputs[0]

    def execute(self):
        self.result = 2 * self.loaded

    def outputs(self):
        return (self.result,)

    def release(self):
        self.released.append(self.size)


def test_each_batch_goes_to_the_model_of_its_size():
    released = []
    compiled = BySize("some", (4, 2), lambda size: Model(size, released))
    for size in (4, 2, 4):
        assert len(compiled.run((np.ones((size, 3)),))[0]) == size
    assert compiled.size_bytes == 6
    with pytest.raises(ConfigurationError, match="engine some was compiled for batches of 4, 2; one of 3 came"):
        compiled.load((np.ones((3, 3)),))
    compiled.release()
    assert sorted(released) == [2, 4]


def test_where_one_size_cannot_be_compiled_the_others_are_given_back():
    released = []

    def make(size):
        if size == 1:
            raise InvalidMeasurement("no such size")
        return Model(size, released)

    with pytest.raises(InvalidMeasurement, match="no such size"):
        BySize("some", (4, 2, 1), make)
    assert sorted(released) == [2, 4]


def test_a_model_whose_lengths_vary_is_refused_by_compilers_of_fixed_shapes():
    one = workload()
    one.dynamic = {"rows": {1: "length"}}
    with pytest.raises(ConfigurationError, match=r"engine ixrt compiles for fixed shapes, .* \(rows \[1\]\)"):
        refuse_dynamic("ixrt", one)


def test_macart_wants_metax_s_build_of_onnxruntime(monkeypatch):
    for name in ("onnx", "onnxscript"):
        put(monkeypatch, name)
    there = ["CPUExecutionProvider"]
    put(monkeypatch, "onnxruntime", get_available_providers=lambda: there)
    engine = registry.load("pytorch", "macart")
    assert engine.available().startswith(
        "engine macart needs MACAExecutionProvider, onnxruntime here has CPUExecutionProvider: install MetaX's build"
    )
    there.insert(0, "MACAExecutionProvider")
    assert engine.available() == ""
