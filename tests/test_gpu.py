"""What is different on a GPU; skipped where there is none."""

from __future__ import annotations

import pytest
import torch
from tiny import StopAt, assert_same, snapshot, tiny_config

from tests.conftest import ROOT
from visreg import generators
from visreg.build import build_runner
from visreg.checkpoint import resume
from visreg.config import load_config
from visreg.device import find_device
from visreg.evaluate import evaluate_checkpoint
from visreg.loader import SampleLoader, TensorLoader

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.usefixtures("apart"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]


def runner_of(device="auto", **sections):
    run = {**sections.pop("run", {}), "device": device}
    return build_runner(tiny_config(run=run, **sections))


def trained(*arguments, **sections):
    runner = runner_of(*arguments, **sections)
    runner.train()
    return runner


def test_auto_is_the_gpu():
    assert find_device("auto") == find_device("cuda") == torch.device("cuda", 0)
    runner = runner_of()
    assert {value.device for value in runner.task.state_dict().values()} == {torch.device("cuda", 0)}


def test_data_that_fits_is_held_on_the_gpu():
    loader = runner_of().train_loader
    assert isinstance(loader, TensorLoader)
    for batch in loader.epoch(0):
        assert {value.device.type for value in batch.values()} == {"cuda"}


@pytest.mark.parametrize("workers", [0, 1])
def test_samples_are_pinned_and_come_on_the_gpu(workers):
    loader = runner_of(train={"in_memory": False, "workers": workers}).train_loader
    assert isinstance(loader, SampleLoader)
    assert all(batch["image"].is_pinned() for batch in loader._loader)
    held = list(runner_of().train_loader.epoch(1))
    assert_same(list(loader.epoch(1)), held)
    assert held[0]["image"].is_cuda


def test_data_that_does_not_fit_is_held_beside_it(monkeypatch):
    held = list(runner_of().train_loader.epoch(1))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 2000))
    loader = runner_of().train_loader
    assert isinstance(loader, TensorLoader)
    assert {value.device.type for value in loader.tensors.values()} == {"cpu"}
    assert_same(list(loader.epoch(1)), held)


def test_random_transforms_are_drawn_and_computed_there_as_on_the_cpu():
    crop, names = {"type": "RandomCrop", "size": 16, "padding": 2}, ("RandomHorizontalFlip", "RandomErasing")
    augmented = [crop, *({"type": name} for name in names)]
    mixed = [{"type": "CutMix", "num_classes": 10}]
    section = {"transforms": augmented, "batch_transforms": mixed}
    one, other = (list(runner_of(device, train=section).train_loader.epoch(1)) for device in ("cuda", "cpu"))
    for mine, theirs in zip(one, other, strict=True):
        assert mine["image"].is_cuda
        assert torch.equal(mine["index"].cpu(), theirs["index"])
        assert (mine["image"].cpu() == theirs["image"]).double().mean() > 0.99


def test_training_is_nearly_that_on_the_cpu():
    cpu, gpu = trained("cpu"), trained("cuda")
    torch.testing.assert_close(gpu.losses["loss"].cpu(), cpu.losses["loss"], rtol=1e-3, atol=1e-4)
    for name, value in cpu.task.state_dict().items():
        torch.testing.assert_close(gpu.task.state_dict()[name].cpu(), value, rtol=1e-3, atol=1e-4)
    assert gpu.scores["accuracy"] == pytest.approx(cpu.scores["accuracy"], abs=0.01)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_other_precisions(precision):
    runner = trained(run={"precision": precision, "epochs": 20})
    assert runner.scores["accuracy"] > 0.5
    assert runner.scaler.is_enabled() == (precision == "fp16")
    assert all(parameter.dtype == torch.float32 for parameter in runner.task.parameters())


def test_a_step_whose_gradients_overflow_in_fp16_is_left_out():
    runner = runner_of(run={"precision": "fp16"})
    batch = next(runner.train_loader.epoch(0))
    before = {name: value.clone() for name, value in runner.task.state_dict().items()}
    runner.scaler = torch.amp.GradScaler("cuda", init_scale=2.0**60)
    runner.train_step(batch)
    assert runner.scaler.get_scale() < 2.0**60
    assert_same(dict(runner.task.state_dict()), before)


def test_the_state_of_the_generator_comes_back():
    device = torch.device("cuda", 0)
    state = generators.state(device)
    wanted = torch.rand(3, device=device)
    generators.set_state(state, device)
    assert torch.equal(torch.rand(3, device=device), wanted)


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_resuming_is_exact(in_memory, precision, tmp_path):
    def build(folder):
        model, hooks = (
            {"type": "ConvNet", "image_size": 16},
            [{"type": "EMA"}, {"type": "Checkpoint", "every_steps": 1}],
        )
        run = {"deterministic": True, "precision": precision, "work_dir": str(tmp_path / folder)}
        return runner_of(train={"in_memory": in_memory}, model=model, hooks=hooks, run=run)

    whole = build("whole")
    whole.train()
    killed = build("killed")
    killed.hooks = [*killed.hooks, StopAt(3, "crash")]
    killed.__attrs_post_init__()
    with pytest.raises(RuntimeError, match="killed"):
        killed.train()
    again = build("killed")
    torch.cuda.manual_seed(99)
    again.load_state_dict(resume(tmp_path / "killed" / "checkpoints", "cpu"))
    assert again.step == 2
    again.train()
    one, other = snapshot(again), snapshot(whole)
    assert_same({**one, "config": ""}, {**other, "config": ""})


def test_a_checkpoint_of_the_gpu_is_evaluated_on_the_cpu(tmp_path):
    run = {"work_dir": str(tmp_path)}
    runner = trained(run=run, hooks=[{"type": "Checkpoint"}])
    path = tmp_path / "checkpoints" / "step_00000008.pt"
    assert evaluate_checkpoint(path, split="val").scores == runner.scores
    found = evaluate_checkpoint(path, split="val", overrides=["run.device=cpu"]).scores
    assert found["accuracy"] == pytest.approx(runner.scores["accuracy"], abs=0.01)


@pytest.mark.slow
def test_compiled():
    one, other = (trained(run={"compile": compiled}) for compiled in (False, True))
    torch.testing.assert_close(other.losses["loss"], one.losses["loss"], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_the_main_job_trains_an_epoch(tmp_path):
    overrides = ["run.epochs=1", f"run.work_dir={str(tmp_path)!r}"]
    runner = build_runner(load_config(ROOT / "configs" / "cnn_mnist.py", overrides))
    runner.train()
    assert runner.device.type == "cuda"
    assert runner.scores["accuracy"] > (0.9 if runner.val_loader.info.name == "MNIST" else 0.3)
