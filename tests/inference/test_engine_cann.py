"""CANN of Ascend, over a module with functions of that name: what is ours of it, and what goes wrong."""

from __future__ import annotations

import ctypes
import json
import os
import sys
import types

import numpy as np
import pytest

from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.worker.inference import registry
from tests.inference.engine_bench import Numbers
from tests.inference.engine_bench import at
from tests.inference.engine_bench import options
from tests.inference.engine_bench import put
from tests.inference.engine_bench import workload


class Acl:
    """pyACL: its memory is the host's, its model doubles."""

    def __init__(self, monkeypatch, fail=""):
        self.memory, self.fail, self.objects, self.count = Numbers(), fail, {}, 0
        self.device = None
        rt = types.SimpleNamespace(set_device=self.set_device, malloc=self.malloc, free=self.free, memcpy=self.memcpy)
        mdl = types.SimpleNamespace(
            load_from_file=lambda path: (self.made("model"), 0),
            unload=self.gone,
            create_desc=lambda: self.made("description"),
            destroy_desc=self.gone,
            get_desc=lambda description, model: 0,
            get_num_inputs=lambda description: 1,
            get_num_outputs=lambda description: 1,
            get_input_size_by_index=lambda description, index: 64,
            get_output_size_by_index=lambda description, index: 96,  # aligned, as theirs are
            get_input_data_type=lambda description, index: 0,
            get_output_data_type=lambda description, index: 0,
            get_output_dims=lambda description, index: ({"name": "doubled", "dims": [4, 4]}, 0),
            create_dataset=lambda: self.made("dataset", []),
            destroy_dataset=self.gone,
            add_dataset_buffer=self.add,
            execute=self.execute,
        )
        put(
            monkeypatch,
            "acl",
            init=lambda: 100002,  # torch_npu was first
            rt=rt,
            mdl=mdl,
            create_data_buffer=lambda address, size: self.made("buffer", (address, size)),
            destroy_data_buffer=self.gone,
            get_soc_name=lambda: "Ascend910B3",
        )

    def made(self, kind, value=None):
        self.count += 1
        self.objects[self.count] = (kind, value)
        return self.count

    def gone(self, handle):
        del self.objects[handle]
        return 0

    def set_device(self, index):
        self.device = index
        return 0

    def malloc(self, size, policy):
        if self.fail == "malloc" and self.memory.taken:
            return 0, 207001
        return self.memory.take(size), 0

    def free(self, address):
        del self.memory.taken[address]
        return 0

    def memcpy(self, to, room, source, count, kind):
        assert kind == (1 if to in self.memory.taken else 2)
        assert count <= room
        ctypes.memmove(to, source, count)
        return 0

    def add(self, dataset, buffer):
        self.objects[dataset][1].append(self.objects[buffer][1])
        return dataset, 0

    def execute(self, model, inputs, outputs):
        if self.fail == "execute":
            return 507011
        (source, _), (target, _) = self.objects[inputs][1][0], self.objects[outputs][1][0]
        at(target, (4, 4))[:] = 2 * at(source, (4, 4))
        return 0


def offline(tmp_path):
    from pytest_flagperf.worker.inference.engines.cann import Offline

    path = tmp_path / "model.om"
    path.write_bytes(b"12345")
    return Offline(path, options(tmp_path, device=types.SimpleNamespace(type="npu", index=3)))


def test_cann_copies_executes_and_gives_everything_back(tmp_path, monkeypatch):
    acl = Acl(monkeypatch)
    compiled = offline(tmp_path)
    assert acl.device == 3
    rows = workload().inputs(range(4))
    first = compiled.run(rows)
    assert np.array_equal(first[0], 2 * rows[0])
    compiled.run((rows[0] + 1,))
    # What was given out is not what the next run writes into.
    assert np.array_equal(first[0], 2 * rows[0])
    assert compiled.precision() == {"inputs": "float32", "outputs": "float32"}
    with pytest.raises(InvalidMeasurement, match="input 0 has 32 bytes, the model takes 64"):
        compiled.load((rows[0][:2],))
    compiled.release()
    assert not acl.objects
    assert not acl.memory.taken


def test_cann_gives_everything_back_where_the_memory_does_not_suffice(tmp_path, monkeypatch):
    acl = Acl(monkeypatch, fail="malloc")
    with pytest.raises(InvalidMeasurement, match="taking 96 bytes of the device's memory failed with 207001"):
        offline(tmp_path)
    assert not acl.objects
    assert not acl.memory.taken


def test_cann_tells_the_code_of_what_the_device_refused(tmp_path, monkeypatch):
    Acl(monkeypatch, fail="execute")
    compiled = offline(tmp_path)
    compiled.load(workload().inputs(range(4)))
    with pytest.raises(InvalidMeasurement, match=r"acl\.mdl\.execute failed with 507011"):
        compiled.execute()


@pytest.mark.parametrize("works", [True, False])
def test_atc_is_called_for_the_shapes_and_its_words_are_told(tmp_path, monkeypatch, works):
    from pytest_flagperf.worker.inference.engines.cann import converted

    Acl(monkeypatch)
    atc = tmp_path / "bin" / "atc"
    atc.parent.mkdir()
    said = tmp_path / "said.json"
    atc.write_text(
        f"#!{sys.executable}\nimport json, sys\njson.dump(sys.argv[1:], open({str(said)!r}, 'w'))\n"
        + (f"open({str(tmp_path / 'model.4.om')!r}, 'w').write('om')" if works else "sys.exit('E10001: bad shape')")
    )
    atc.chmod(0o755)
    monkeypatch.setenv("PATH", str(atc.parent), prepend=os.pathsep)
    source = tmp_path / "model.4.onnx"
    if works:
        assert converted(source, workload(), options(tmp_path)) == tmp_path / "model.4.om"
        arguments = dict(one[2:].split("=", 1) for one in json.loads(said.read_text()))
        assert arguments["input_shape"] == "rows:4,4"
        assert arguments["soc_version"] == "Ascend910B3"
        assert arguments["output"] == str(tmp_path / "model.4")
        assert arguments["framework"] == "5"
    else:
        with pytest.raises(InvalidMeasurement, match=r"ATC ended with 1 and cannot convert .*E10001: bad shape"):
            converted(source, workload(), options(tmp_path))


def test_cann_without_atc_says_what_to_source(monkeypatch, tmp_path):
    Acl(monkeypatch)
    monkeypatch.setenv("PATH", str(tmp_path))
    said = registry.load("pytorch", "cann").available()
    assert said == "engine cann needs atc, which is not on the PATH: source CANN's set_env.sh"
