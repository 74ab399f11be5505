"""What several trainings in PyTorch do alike."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def adamw_one_cycle(model: nn.Module, config: Any, steps: int) -> tuple[torch.optim.Optimizer, Any]:
    """AdamW with clipped gradients, and a learning rate that rises and falls once over ``steps``.

    Reads ``learning_rate`` (the highest), ``weight_decay``, ``gradient_norm`` and ``warmup_share``, the share of the
    steps that it rises (Smith and Topin 2017).
    """
    optimizer = torch.optim.AdamW(model.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    clip_before_steps(optimizer, config.gradient_norm)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=steps, pct_start=config.warmup_share
    )
    return optimizer, schedule


def clip_before_steps(optimizer: torch.optim.Optimizer, norm: float) -> None:
    """All gradients of the optimizer together are at most ``norm`` long at each of its steps."""
    parameters = [one for group in optimizer.param_groups for one in group["params"]]

    # What a hook gives would replace the optimizer's arguments.
    def clip(*_: Any) -> None:
        nn.utils.clip_grad_norm_(parameters, norm)

    optimizer.register_step_pre_hook(clip)
