"""What several trainings in PyTorch do alike."""

from __future__ import annotations

from types import SimpleNamespace

import pytest


torch = pytest.importorskip("torch")

from pytest_flagperf.worker.recipes import adamw_one_cycle  # noqa: E402  # needs torch
from pytest_flagperf.worker.recipes import clip_before_steps  # noqa: E402


pytestmark = pytest.mark.pytorch


def test_all_gradients_together_are_clipped_before_each_step():
    one, other = torch.nn.Parameter(torch.zeros(3)), torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([{"params": [one]}, {"params": [other], "weight_decay": 0.0}], lr=1.0)
    clip_before_steps(optimizer, 2.0)
    one.grad, other.grad = torch.tensor([3.0, 0.0, 0.0]), torch.tensor([4.0])
    optimizer.step()
    assert one.tolist() == pytest.approx([-1.2, 0, 0], abs=1e-4)
    assert other.tolist() == pytest.approx([-1.6], abs=1e-4)
    # What is shorter stays.
    one.grad, other.grad = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0])
    optimizer.step()
    assert one.tolist() == pytest.approx([-2.2, 0, 0], abs=1e-4)


def test_the_learning_rate_rises_for_its_share_of_the_steps_and_falls_for_the_rest():
    model = torch.nn.Linear(2, 1)
    config = SimpleNamespace(learning_rate=0.1, weight_decay=0.01, gradient_norm=1.0, warmup_share=0.2)
    optimizer, schedule = adamw_one_cycle(model, config, 21)
    rates = []
    for _ in range(20):
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        rates.append(optimizer.param_groups[0]["lr"])
        schedule.step()
    assert max(rates) == pytest.approx(0.1, rel=0.02)
    top = rates.index(max(rates))
    assert 2 <= top <= 4
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert optimizer.param_groups[0]["weight_decay"] == 0.01
