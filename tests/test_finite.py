"""What is looked at, what is said, and what is kept."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from tiny import LinearTask, TinyTask, tiny_runner
from torch import nn

from visreg import finite
from visreg.checkpoint import load
from visreg.errors import NotFiniteError
from visreg.finite import FiniteCheck


def ready(task=LinearTask, work_dir=None, **options):
    """Return a runner whose gradients are those of its first batch, and the batch."""
    runner = tiny_runner(work_dir or "unused", task=task, **options)
    batch = next(iter(runner.train_loader.epoch(0)))
    runner.gradients(batch)
    return runner, batch


def grad(runner, value):
    next(runner.task.parameters()).grad[0, 0] = value


def test_finite_numbers_pass_and_are_left_as_they_are():
    runner, batch = ready()
    grad(runner, torch.finfo(torch.float32).max)
    before = [parameter.grad.clone() for parameter in runner.task.parameters()]
    check = FiniteCheck.of(runner)
    check.check(runner, batch)
    check.settle(runner)
    assert all(torch.equal(p.grad, b) for p, b in zip(runner.task.parameters(), before, strict=True))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_number_among_many_is_found(tmp_path, value):
    runner, batch = ready(work_dir=tmp_path)
    grad(runner, value)
    with pytest.raises(NotFiniteError, match=r"the gradient of model\.weight is not finite"):
        FiniteCheck.of(runner).check(runner, batch)
    runner, batch = ready(work_dir=tmp_path)
    runner.losses["loss"] = torch.tensor(value)
    with pytest.raises(NotFiniteError, match="loss is not finite, though the output of every module is"):
        FiniteCheck.of(runner).check(runner, batch)


@pytest.mark.parametrize("value", [0.0, math.nan])
@pytest.mark.parametrize(
    "make",
    [
        lambda value: torch.sparse_coo_tensor([[0]], [value], (3,)),
        lambda value: torch.tensor([1, complex(0, value)]),
        lambda value: torch.tensor([value], dtype=torch.float64),
        lambda value: torch.tensor([value], dtype=torch.bfloat16),
    ],
    ids=["sparse", "complex", "double", "bfloat16"],
)
def test_gradients_of_every_kind_are_looked_at(make, value):
    flag = torch.zeros(())
    with torch.sparse.check_sparse_tensor_invariants():  # or torch 2.11 warns that it does not
        finite._raise_flag(flag, [torch.ones(2), torch.tensor(3), make(value)], torch.ones(()))
    assert flag.item() == math.isnan(value)


def test_the_flag_stays_up():
    flag, one = torch.zeros(()), torch.ones(())
    finite._raise_flag(flag, [torch.tensor([math.nan])], one)
    finite._raise_flag(flag, [torch.tensor([1.0])], one)
    assert flag.item() == 1


def test_only_a_fused_optimizer_on_a_gpu_without_a_scaler_answers_late():
    def late(device="cuda", fused=True, scaled=False):
        optimizer = SimpleNamespace(**({"_step_supports_amp_scaling": True} if fused else {}))
        scaler = SimpleNamespace(is_enabled=lambda: scaled)
        return finite.answers_late(SimpleNamespace(device=torch.device(device), optimizer=optimizer, scaler=scaler))

    assert late()
    assert not late(device="cpu")
    assert not late(fused=False)
    assert not late(scaled=True)


class Deep(LinearTask):
    """Divides by zero in the middle, in a module of a module, which gives a dict."""

    class Divide(nn.Module):
        def forward(self, image):
            return {"divided": image / 0, "kept": [image]}

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.divide = Deep.Divide()

        def forward(self, image):
            return self.divide(image)["divided"]

    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(nn.Linear(4, 4), Deep.Block(), nn.Linear(4, 3))


def test_the_first_module_is_the_innermost_one_and_inputs_are_named(tmp_path):
    runner, batch = ready(Deep, tmp_path)
    with pytest.raises(NotFiniteError, match=r"output of model\.1\.divide \(Divide\) is not finite \("):
        FiniteCheck.of(runner).check(runner, batch)
    batch["image"][2, 1] = math.nan
    with pytest.raises(
        NotFiniteError, match=r"model\.0 \(Linear\) is not finite, and neither is the batch's 'image' \("
    ):
        FiniteCheck.of(runner).check(runner, batch)
    assert not any(module._forward_hooks for module in runner.task.modules())


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # which is deprecated, and still in use
def test_what_torchscript_has_compiled_is_known_by_what_it_is_in(tmp_path):
    runner, batch = ready(Deep, tmp_path)
    runner.task.model[0] = nn.Sequential(torch.jit.script(nn.Sequential(nn.Linear(4, 4))))
    batch["image"][2, 1] = math.nan
    with pytest.raises(NotFiniteError, match=r"output of model\.0 \(Sequential\) is not finite"):
        FiniteCheck.of(runner).check(runner, batch)


def test_looking_for_the_cause_changes_no_buffer(tmp_path):
    runner, batch = ready(TinyTask, tmp_path)
    before = [buffer.clone() for buffer in runner.task.buffers()]
    finite._first_module(runner, batch)
    assert all(torch.equal(one, other) for one, other in zip(before, runner.task.buffers(), strict=True))


def test_many_samples_are_kept_and_some_are_named(tmp_path):
    assert finite._shown([]) == "unknown"
    assert finite._shown(range(16)) == ", ".join(map(str, range(16)))
    assert finite._shown(range(20)).endswith("14, 15 and 4 more")


def test_a_batch_that_cannot_be_kept_is_said_to_be(tmp_path):
    (tmp_path / "not_finite").write_text("in the way")
    runner, batch = ready(work_dir=tmp_path)
    grad(runner, math.nan)
    with pytest.raises(NotFiniteError, match=r"the batch could not be kept \(.*not_finite"):
        FiniteCheck.of(runner).check(runner, batch)


def test_what_is_kept_is_plain_and_no_more_than_the_batch(tmp_path):
    class Special(torch.Tensor):
        pass

    runner, batch = ready(work_dir=tmp_path)
    batch |= {
        "special": torch.zeros(4).as_subclass(Special),
        "view": torch.zeros(10**6)[:4],
        "name": ["a", {1}, None, 2],
    }
    grad(runner, math.nan)
    with pytest.raises(NotFiniteError):
        FiniteCheck.of(runner).check(runner, batch)
    path = tmp_path / "not_finite" / "step_00000001.pt"
    kept = load(path)["batches"][0]
    assert path.stat().st_size < 100_000
    assert type(kept["special"]) is torch.Tensor
    assert kept["name"] == ["a", [1], None, 2]
    fresh = tiny_runner(task=LinearTask)
    fresh.load_task(load(path))
    assert math.isfinite(float(fresh.task(kept)["loss"].detach()))
