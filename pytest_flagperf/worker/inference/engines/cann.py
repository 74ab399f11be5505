"""Huawei Ascend: CANN's ATC compiles an ONNX file, its AscendCL (pyACL) executes it.

Written to CANN's documentation of ``atc`` and pyACL; untested on hardware.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.worker.inference.engine import BaseCompiled
from pytest_flagperf.worker.inference.engine import CompileOptions
from pytest_flagperf.worker.inference.engines import onnxruntime
from pytest_flagperf.worker.inference.engines.vendors import FromOnnx
from pytest_flagperf.worker.inference.engines.vendors import as_float32
from pytest_flagperf.worker.inference.engines.vendors import index_of
from pytest_flagperf.worker.inference.workload import Arrays
from pytest_flagperf.worker.inference.workload import InferenceWorkload


# ATC's number of ONNX.
ONNX = 5
# Of acl_base.h and acl_rt.h.
SUCCESS = 0
ALREADY_INITIALISED = 100002
MALLOC_HUGE_FIRST = 0
HOST_TO_DEVICE, DEVICE_TO_HOST = 1, 2
TYPES = {
    0: np.float32,
    1: np.float16,
    2: np.int8,
    3: np.int32,
    4: np.uint8,
    6: np.int16,
    9: np.int64,
    11: np.float64,
    12: np.bool_,
}


class Cann(FromOnnx):
    """An offline model in fp16, for each batch size.

    fp32 is left out: whether products of it are made in HF32 the model does not tell.
    """

    name = "cann"
    precisions = ("fp16",)
    modules = ("acl", "onnx", "onnxscript")
    stack = "CANN and source its set_env.sh, and pip install onnx onnxscript"

    def available(self) -> str:
        """See :class:`~pytest_flagperf.worker.inference.engine.Engine`."""
        missing = super().available()
        if not missing and shutil.which("atc") is None:
            return "engine cann needs atc, which is not on the PATH: source CANN's set_env.sh"
        return missing

    def compile_one(self, path: Path, workload: InferenceWorkload, options: CompileOptions) -> Offline:
        """See :class:`~pytest_flagperf.worker.inference.engines.vendors.FromOnnx`."""
        if onnxruntime.kind_of(options.device) != "npu":
            raise ConfigurationError(f"engine cann executes on Ascend's devices, not on {options.device}")
        return Offline(converted(path, workload, options), options)


def converted(source: Path, workload: InferenceWorkload, options: CompileOptions) -> Path:
    """The offline model's file. Raises ``InvalidMeasurement`` with what ATC said."""
    import acl

    target = source.with_suffix("")
    arrays = workload.inputs(range(options.batch_size))
    shapes = (
        f"{name}:{','.join(map(str, array.shape))}" for name, array in zip(workload.input_names, arrays, strict=True)
    )
    command = [
        *("atc", f"--framework={ONNX}", f"--model={source}", f"--output={target}"),
        *(f"--input_shape={';'.join(shapes)}", f"--soc_version={acl.get_soc_name()}"),
        *("--precision_mode_v2=fp16", "--output_type=FP32", "--log=error"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, cwd=source.parent)
    path = target.with_name(f"{target.name}.om")
    if done.returncode or not path.is_file():
        said = (done.stdout + done.stderr).strip()[-2000:]
        raise InvalidMeasurement(f"ATC ended with {done.returncode} and cannot convert {source}: {said}")
    return path


def checked(what: str, code: int, *accepted: int) -> None:
    """Raises ``InvalidMeasurement`` for what AscendCL calls an error."""
    if code not in (SUCCESS, *accepted):
        raise InvalidMeasurement(f"engine cann: {what} failed with {code}, see CANN's list of aclError")


class Offline(BaseCompiled):
    """An offline model and its buffers on the device. ``execute`` is the model alone, which returns when it is done."""

    def __init__(self, path: Path, options: CompileOptions) -> None:
        import acl

        self.acl = acl
        self.size_bytes = path.stat().st_size
        with contextlib.ExitStack() as stack:
            # torch_npu has done both in this process already, and ends it, too.
            checked("acl.init", acl.init(), ALREADY_INITIALISED)
            checked("acl.rt.set_device", acl.rt.set_device(index_of(options.device)))
            self.model, code = acl.mdl.load_from_file(str(path))
            checked(f"loading {path}", code)
            stack.callback(acl.mdl.unload, self.model)
            self.description = acl.mdl.create_desc()
            stack.callback(acl.mdl.destroy_desc, self.description)
            checked("acl.mdl.get_desc", acl.mdl.get_desc(self.description, self.model))
            mdl, description = acl.mdl, self.description
            self.input_set, self.inputs = self._buffers(
                stack, mdl.get_num_inputs(description), lambda index: mdl.get_input_size_by_index(description, index)
            )
            self.output_set, self.given = self._buffers(
                stack, mdl.get_num_outputs(description), lambda index: mdl.get_output_size_by_index(description, index)
            )
            self.stack = stack.pop_all()

    def _buffers(
        self, stack: contextlib.ExitStack, count: int, size_of: Callable[[int], int]
    ) -> tuple[Any, list[tuple[int, int]]]:
        """A data set, and (address, bytes) of the memory for each of its tensors."""
        acl = self.acl
        dataset = acl.mdl.create_dataset()
        stack.callback(acl.mdl.destroy_dataset, dataset)
        found = []
        for index in range(count):
            size = size_of(index)
            address, code = acl.rt.malloc(size, MALLOC_HUGE_FIRST)
            checked(f"taking {size} bytes of the device's memory", code)
            stack.callback(acl.rt.free, address)
            buffer = acl.create_data_buffer(address, size)
            stack.callback(acl.destroy_data_buffer, buffer)
            _, code = acl.mdl.add_dataset_buffer(dataset, buffer)
            checked("acl.mdl.add_dataset_buffer", code)
            found.append((address, size))
        return dataset, found

    def _type(self, code: int) -> Any:
        if code not in TYPES:
            raise InvalidMeasurement(f"engine cann: the model has tensors of aclDataType {code}, which NumPy lacks")
        return np.dtype(TYPES[code])

    def load(self, inputs: Arrays) -> None:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`."""
        for index, (array, (address, size)) in enumerate(zip(inputs, self.inputs, strict=True)):
            kind = self._type(self.acl.mdl.get_input_data_type(self.description, index))
            typed = np.ascontiguousarray(array, kind)
            if typed.nbytes != size:
                raise InvalidMeasurement(f"engine cann: input {index} has {typed.nbytes} bytes, the model takes {size}")
            checked(
                "copying an input", self.acl.rt.memcpy(address, size, typed.ctypes.data, typed.nbytes, HOST_TO_DEVICE)
            )

    def execute(self) -> None:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`."""
        checked("acl.mdl.execute", self.acl.mdl.execute(self.model, self.input_set, self.output_set))

    def outputs(self) -> Arrays:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`."""
        found = []
        for index, (address, size) in enumerate(self.given):
            dimensions, code = self.acl.mdl.get_output_dims(self.description, index)
            checked("acl.mdl.get_output_dims", code)
            host = np.empty(dimensions["dims"], self._type(self.acl.mdl.get_output_data_type(self.description, index)))
            if host.nbytes > size:
                raise InvalidMeasurement(f"engine cann: output {index} is {host.shape}, its memory has {size} bytes")
            checked(
                "copying an output",
                self.acl.rt.memcpy(host.ctypes.data, host.nbytes, address, host.nbytes, DEVICE_TO_HOST),
            )
            found.append(as_float32(host))
        return tuple(found)

    def precision(self) -> dict[str, Any]:
        """The types of what the model takes and gives; those of its layers it does not tell."""
        mdl = self.acl.mdl
        inputs = [self._type(mdl.get_input_data_type(self.description, one)) for one in range(len(self.inputs))]
        outputs = [self._type(mdl.get_output_data_type(self.description, one)) for one in range(len(self.given))]
        return {"inputs": ", ".join(map(str, inputs)), "outputs": ", ".join(map(str, outputs))}

    def release(self) -> None:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`: in the reverse order of their making."""
        self.stack.close()
