"""What a step leaves behind."""

from __future__ import annotations

import logging

import torch
from tiny import tiny_runner
from torch import nn

from visreg.step import drop_gradients


def test_gradients_are_dropped_as_zero_grad_drops_them():
    parameters = [nn.Parameter(torch.zeros(2)) for _ in range(3)]
    optimizer = torch.optim.SGD([{"params": parameters[:2]}, {"params": parameters[2:], "lr": 0.1}], lr=1.0)
    for parameter in parameters[1:]:
        parameter.grad = torch.ones(2)
    drop_gradients(optimizer)
    assert [parameter.grad for parameter in parameters] == [None] * 3


def test_an_optimizer_drops_gradients_in_its_own_way():
    class Keeping(torch.optim.SGD):
        def zero_grad(self, set_to_none=True):
            super().zero_grad(set_to_none=False)

    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.ones(2)
    drop_gradients(Keeping([parameter], lr=1.0))
    assert parameter.grad.tolist() == [0, 0]


def test_a_run_ends_without_gradients():
    runner = tiny_runner(eval_steps=0)
    runner.train()
    assert len(runner.losses) == 1
    assert all(parameter.grad is None for parameter in runner.task.parameters())


def test_what_is_compiled_tells_nothing_of_a_cuda_that_it_does_not_use(monkeypatch):
    logger = logging.getLogger("torch.utils.cpp_extension")
    monkeypatch.setattr(logger, "level", logging.NOTSET)
    logger.manager._clear_cache()
    runner = tiny_runner()
    runner.compile = True
    runner.wrap()
    assert not logger.isEnabledFor(logging.WARNING)
