"""Whether a framework can be imported here, and how many of a vendor's devices it sees.

Run by path, in an interpreter of its own: ``PYTHON -P present.py FRAMEWORK DEVICE MODULE``. The last line that it
prints is ``{"version": ..., "devices": ...}``. Standard library and the framework only.
"""

from __future__ import annotations

import importlib
import json
import sys


def pytorch(device: str, module: str) -> tuple[str, int]:
    """PyTorch's version and its count of devices; ``module`` is the plug-in that brings the device."""
    import torch

    if module:
        importlib.import_module(module)
    return str(torch.__version__), 1 if device == "cpu" else int(getattr(torch, device).device_count())


def paddle(device: str, module: str) -> tuple[str, int]:
    """PaddlePaddle's version and its count of devices; of a plug-in's device only whether it is there."""
    import paddle

    if device == "cpu":
        return str(paddle.__version__), 1
    if device == "gpu":
        return str(paddle.__version__), int(paddle.device.cuda.device_count())
    if device == "xpu":
        seen = paddle.device.xpu.device_count() if paddle.device.is_compiled_with_xpu() else 0
        return str(paddle.__version__), int(seen)
    return str(paddle.__version__), paddle.device.get_all_custom_device_type().count(device)


def mindspore(device: str, module: str) -> tuple[str, int]:
    """MindSpore's version and its count of devices."""
    import mindspore

    return str(mindspore.__version__), 1 if device == "CPU" else int(mindspore.hal.device_count(device))


def main(framework: str, device: str, module: str) -> None:
    """Print what the framework tells."""
    version, devices = {"pytorch": pytorch, "paddle": paddle, "mindspore": mindspore}[framework](device, module)
    print("\n" + json.dumps({"version": version, "devices": devices}))


if __name__ == "__main__":
    main(*sys.argv[1:])
