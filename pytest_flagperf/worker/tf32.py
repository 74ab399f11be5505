"""Whether products of float32 numbers are made in TF32: read back, and refused where it is not what was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_flagperf.errors import PrecisionUnavailable


def state(switches: Mapping[str, Any]) -> bool | str:
    """Whether TF32 is on; where the switches do not agree, the names of those that are."""
    on = [name for name, value in switches.items() if value]
    return ", ".join(on) if 0 < len(on) < len(switches) else bool(on)


def refuse_other(in_force: Mapping[str, Any], asked: str) -> None:
    """Raises ``PrecisionUnavailable`` where TF32 is on unasked, or not everywhere on though asked for.

    fp32 with TF32 products is not fp32. ``in_force`` has ``tf32`` as :func:`state` gives it, and none of it where the
    device has no such mode.
    """
    tf32 = in_force.get("tf32")
    if tf32 in (None, asked == "tf32"):
        return
    which = f" for {tf32} only" if isinstance(tf32, str) else ""
    raise PrecisionUnavailable(f"{asked} was asked for, but TF32 is {'on' if tf32 else 'off'}{which}: {dict(in_force)}")
