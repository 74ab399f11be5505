"""AI-hardware benchmarks as pytest tests: what a suite or a vendor's repository imports.

``Case`` vocabulary, targets, the metric registry and the errors. Names are loaded when first used: a worker
process imports this package too and needs next to nothing of it.
"""

from __future__ import annotations

import importlib
from typing import Any


__version__ = "0.1.0"

_PUBLIC = {
    "ConfigurationError": "errors",
    "DatasetError": "errors",
    "DeviceUnavailable": "errors",
    "FlagPerfError": "errors",
    "InferenceCase": "case",
    "InvalidMeasurement": "errors",
    "OperatorCase": "operators.case",
    "Scale": "case",
    "Target": "case",
    "TargetMissed": "errors",
    "Topology": "case",
    "TrainingCase": "case",
    "WrongResult": "errors",
    "at_least": "case",
    "at_most": "case",
    "register_metric": "metrics",
}

__all__ = ["__version__", *_PUBLIC]  # noqa: PLE0604 (names are strings, listed above)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_PUBLIC[name]}")
    return getattr(module, "register" if name == "register_metric" else name)


def __dir__() -> list[str]:
    return sorted(__all__)
