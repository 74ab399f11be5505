"""Engines that are wrong on purpose, each in its own way. The tests register them; the product has none of them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from pytest_flagperf.worker.inference.engine import BaseCompiled
from pytest_flagperf.worker.inference.engines.eager import Eager
from pytest_flagperf.worker.inference.engines.onnxruntime import MODEL
from pytest_flagperf.worker.inference.engines.onnxruntime import OnnxRuntime


class Wrapped(BaseCompiled):
    """What eager execution gives, changed by ``change(inputs, outputs, number of the call)``."""

    def __init__(self, inner: Any, change: Any) -> None:
        self.inner, self.change, self.calls = inner, change, 0
        self.size_bytes = inner.size_bytes

    def load(self, inputs: Any) -> None:
        self.loaded = inputs
        self.inner.load(inputs)

    def execute(self) -> None:
        self.calls += 1
        self.inner.execute()

    def outputs(self) -> Any:
        return self.change(self.loaded, self.inner.outputs(), self.calls)


class Wrong(Eager):
    precisions: Sequence[str] = ("fp32",)

    def compile(self, model: Any, workload: Any, options: Any) -> Any:
        return Wrapped(super().compile(model, workload, options), self.change)

    def change(self, inputs: Any, outputs: Any, call: int) -> Any:
        return outputs


class Perturbed(Wrong):
    """Weights with noise of a tenth of their size: the classes stay nearly the same, the numbers do not."""

    name = "perturbed"

    def compile(self, model: Any, workload: Any, options: Any) -> Any:
        import copy

        import torch

        noisy = copy.deepcopy(model)
        torch.manual_seed(0)
        with torch.no_grad():
            for parameter in noisy.parameters():
                parameter.mul_(1 + 0.1 * torch.randn_like(parameter))
        return Eager.compile(self, noisy, workload, options)


class Shifted(Wrong):
    """Every class is taken for the next one."""

    name = "shifted"

    def change(self, inputs: Any, outputs: Any, call: int) -> Any:
        return (np.roll(outputs[0], 1, axis=1),)


class Cached(Wrong):
    """Right as long as accuracy is looked at; then it answers with what it has answered before."""

    name = "cached"

    def __init__(self) -> None:
        self.kept: dict[int, Any] = {}

    def change(self, inputs: Any, outputs: Any, call: int) -> Any:
        rows = len(inputs[0])
        if call > 22:  # three warm-ups of two sizes, and sixteen batches of the accuracy run
            return self.kept[rows]
        self.kept[rows] = outputs
        return outputs


class Truncated(Wrong):
    """The last, smaller batch is cut short."""

    name = "truncated"

    def change(self, inputs: Any, outputs: Any, call: int) -> Any:
        return (outputs[0][:-1],) if call > 6 and len(inputs[0]) == 40 else outputs


class NotANumber(Wrong):
    """One answer is NaN."""

    name = "notanumber"

    def change(self, inputs: Any, outputs: Any, call: int) -> Any:
        outputs[0][0, 0] = np.nan
        return outputs


class Crashing(Wrong):
    """Dies while it compiles."""

    name = "crashing"

    def compile(self, model: Any, workload: Any, options: Any) -> Any:
        os.abort()


class Hanging(Wrong):
    """Never ends to compile."""

    name = "hanging"

    def compile(self, model: Any, workload: Any, options: Any) -> Any:
        while True:
            time.sleep(0.1)


class Absent(Wrong):
    """Needs a package that nobody has."""

    name = "absent"
    packages: Mapping[str, str] = {"no_such_package_at_all": "no-such-package-at-all"}


class OutOfMemory(Wrong):
    """Asks for more memory than there is."""

    name = "outofmemory"

    def compile(self, model: Any, workload: Any, options: Any) -> Any:
        return np.empty(2**62, np.uint8)


class Damaged(OnnxRuntime):
    """Its exported model is cut short before the session reads it."""

    name = "damaged"

    def export(self, model: Any, workload: Any, options: Any) -> Any:
        path = super().export(model, workload, options)
        path.write_bytes(path.read_bytes()[:1000])
        return path


class FullDisk(OnnxRuntime):
    """Its exported model goes where there is no space left."""

    name = "fulldisk"

    def export(self, model: Any, workload: Any, options: Any) -> Any:
        (options.directory / MODEL).symlink_to("/dev/full")
        return super().export(model, workload, options)


class Killed(Wrong):
    """Somebody, such as the kernel where memory runs out, ends it while it compiles."""

    name = "killed"

    def compile(self, model: Any, workload: Any, options: Any) -> Any:
        (options.directory / "model.plan").write_bytes(bytes(2**20 + 1))
        os.kill(os.getpid(), signal.SIGKILL)
