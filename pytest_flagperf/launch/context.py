"""What a rank is told about itself. Standard library only: the worker imports it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RankContext:
    """The only argument of a worker's entry.

    ``case_file`` is the resolved case; ``host_dir`` is where the rank writes ``rank<N>.events.jsonl``. ``rank`` counts
    over all hosts, ``local_rank`` over this one.
    """

    case_file: Path
    host_dir: Path
    rank: int
    local_rank: int
    world_size: int
