from __future__ import annotations

import pytest
import torch
from tiny import LinearTask, at, tiny_runner
from torch import nn

from visreg.errors import ConfigError
from visreg.hooks.clip_grad import ClipGrad
from visreg.hooks.regularization import L1, L2
from visreg.patterns import matches


def gradients(*hooks, task=None):
    """Return the gradients of the first step, by name, as the optimizer gets them."""
    seen = {}

    def look(runner):
        seen.update({name: parameter.grad.clone() for name, parameter in runner.task.named_parameters()})

    tiny_runner(hooks=[*hooks, at(after_backward=look)], task=task, total_steps=1, eval_steps=0).train()
    return seen


def task():
    torch.manual_seed(3)
    return LinearTask()


@pytest.mark.parametrize(("norm_type", "ord_"), [(2.0, 2), (float("inf"), float("inf")), (1, 1)])
def test_clipping_scales_all_gradients_to_the_norm(norm_type, ord_):
    plain, clipped = gradients(task=task()), gradients(ClipGrad(max_norm=0.01, norm_type=norm_type), task=task())
    flat, flat_clipped = (torch.cat([grad.flatten() for grad in grads.values()]) for grads in (plain, clipped))
    torch.testing.assert_close(flat_clipped.norm(ord_), torch.tensor(0.01), rtol=1e-3, atol=0)
    torch.testing.assert_close(flat_clipped / flat_clipped.norm(), flat / flat.norm())


def test_small_gradients_are_not_scaled_up():
    plain, clipped = gradients(task=task()), gradients(ClipGrad(max_norm=1e6), task=task())
    assert all(torch.equal(plain[name], clipped[name]) for name in plain)


class Penalised(LinearTask):
    """With a parameter that the loss does not touch, and the penalty in the loss."""

    def __init__(self, l1=0.0, l2=0.0, names=("model.weight", "model.bias", "unused")):
        super().__init__()
        self.unused = nn.Parameter(torch.tensor([1.0, -2.0, 0.0]))
        self.l1, self.l2, self.names = l1, l2, names

    def forward(self, batch):
        penalised = [dict(self.named_parameters())[name] for name in self.names]
        penalty = sum(self.l1 * each.abs().sum() + self.l2 / 2 * each.square().sum() for each in penalised)
        return {**super().forward(batch), "penalty": penalty + 0 * self.unused.sum()}


def penalised(**options):
    torch.manual_seed(3)
    return Penalised(**options)


def assert_same_gradients(one, other):
    for name in one:
        torch.testing.assert_close(one[name], other[name], msg=name)


def test_l1_and_l2_train_as_if_added_to_the_loss():
    assert_same_gradients(gradients(L1(weight=0.3), task=penalised()), gradients(task=penalised(l1=0.3)))
    assert_same_gradients(gradients(L2(weight=0.3), task=penalised()), gradients(task=penalised(l2=0.3)))


def test_what_the_loss_does_not_touch_is_regularised_too():
    class Untouched(LinearTask):
        def __init__(self):
            super().__init__()
            self.unused = nn.Parameter(torch.tensor([1.0, -2.0]))

    assert gradients(L2(weight=0.5), task=Untouched())["unused"].tolist() == [0.5, -1.0]


def test_patterns_choose_what_is_regularised():
    only_weight = gradients(task=penalised(l2=0.3, names=["model.weight"]))
    assert_same_gradients(gradients(L2(weight=0.3, exclude=["*bias", "unused"]), task=penalised()), only_weight)
    assert_same_gradients(gradients(L2(weight=0.3, patterns=["weight"]), task=penalised()), only_weight)


def test_a_pattern_that_matches_nothing_is_an_error_with_near_names():
    with pytest.raises(ConfigError, match=r"L1: the pattern 'wieght' matches no parameter .* did you mean 'weight'"):
        gradients(L1(weight=1.0, patterns=["wieght"]), task=task())
    with pytest.raises(ConfigError, match="L2: the pattern 'bais'"):
        gradients(L2(weight=1.0, exclude=["bais"]), task=task())


@pytest.mark.parametrize(
    "make", [lambda: L1(weight=0.0), lambda: L2(weight=1.0, patterns="*"), lambda: ClipGrad(max_norm=0)]
)
def test_bad_options_are_refused(make):
    with pytest.raises((ValueError, TypeError)):
        make()


def test_a_name_is_not_a_pattern_for_a_longer_name():
    assert not matches("model.fc2.weight", ["fc"])
    assert matches("model.fc2.weight", ["fc*"])
    assert matches("model.fc2.weight", ["model.fc2"])
