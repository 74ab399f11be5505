"""Memory of the host, for workloads that run on its processor."""

from __future__ import annotations

import os
import resource


def host_memory() -> dict[str, float]:
    """``memory_peak``: this process' peak resident set; ``memory_total``: the host's memory. GiB."""
    # Linux reports ru_maxrss in KiB.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"memory_peak": peak, "memory_total": total}
