"""The files that a vendor is, and their digest: what a Result was measured with."""

from __future__ import annotations

import hashlib

from pytest_flagperf.devices.vendor import Vendor


def names(vendor: Vendor) -> list[str]:
    """The files that a vendor is: its ``vendor.toml``, and the modules and libraries beside it that this names."""
    named = [probe.library for probe in vendor.probe] + [output.parser for output in vendor.output.values()]
    return ["vendor.toml", *sorted({text.partition(":")[0] for text in named if text})]


def digest(vendor: Vendor) -> str:
    """The digest of those files that a Result holds in ``vendor_file``."""
    found = hashlib.sha256()
    for name in names(vendor):
        found.update(name.encode() + b"\0" + (vendor.directory / name).read_bytes())
    return found.hexdigest()
