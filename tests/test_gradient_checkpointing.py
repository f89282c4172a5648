"""Gradient checkpointing: the very same training, with less kept in memory."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny import assert_same, snapshot, tiny_config, tiny_runner
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from visreg import MODELS, check_config
from visreg.build import build_runner
from visreg.config import config_from
from visreg.errors import ConfigError
from visreg.gradient_checkpointing import blocks, checkpoint_gradients
from visreg.task import Task


class Block(nn.Module):
    """Has everything that a second forward could spoil: statistics, a power iteration, dropout."""

    def __init__(self, width=16):
        super().__init__()
        self.linear = spectral_norm(nn.Linear(width, width))
        self.norm = nn.BatchNorm1d(width, momentum=None)
        self.dropout = nn.Dropout(0.3)

    def forward(self, x, *, scale=1.0):
        return {"x": x + self.dropout(self.norm(self.linear(x)).relu()) * scale}


class Deep(nn.Module):
    """A stack of blocks."""

    def __init__(self, depth=4):
        super().__init__()
        self.stem = nn.Linear(4, 16)
        self.blocks = nn.ModuleList(Block() for _ in range(depth))
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x, scale=0.5)["x"]
        return self.head(x)


class DeepTask(Task):
    def __init__(self, which=False):
        super().__init__()
        self.model = Deep()
        checkpoint_gradients(self.model, which)

    def forward(self, batch):
        return {"loss": nn.functional.cross_entropy(self.model(batch["image"]), batch["label"])}

    def predict(self, batch):
        return {"label": self.model(batch["image"]).argmax(1)}


def kept(function):
    """Return how many bytes the backward pass of what ``function`` computes would find in memory."""
    found = {}

    def pack(tensor):
        found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = function()
    assert output.requires_grad
    return sum(found.values())


@pytest.mark.parametrize("which", [True, ["blocks"], ["blocks.[12]"], ["blocks.*"], ["blocks.3", "head"], ["*"]])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_training_is_the_same_bit_by_bit(which, accumulate):
    states = []
    for option in (False, which):
        torch.manual_seed(0)
        runner = tiny_runner(task=DeepTask(option), accumulate=accumulate)
        runner.train()
        states.append(snapshot(runner))
    assert_same(*states)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gradients_are_the_same_bit_by_bit(precision):
    gradients = []
    for which in (False, True):
        torch.manual_seed(0)
        model = Deep()
        checkpoint_gradients(model, which)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            model(torch.randn(8, 4)).square().mean().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert_same(*gradients)


def test_less_is_kept():
    images = torch.randn(512, 4)
    usual, saving, some = Deep(), Deep(), Deep()
    checkpoint_gradients(saving, True)
    checkpoint_gradients(some, ["blocks.0"])
    sizes = [kept(lambda model=model: model(images).sum()) for model in (usual, some, saving)]
    assert sizes[0] > 1.2 * sizes[1] > 1.2 * 2 * sizes[2]


def test_each_module_is_computed_twice_in_training_and_once_in_evaluation():
    model, calls = Deep(), []
    checkpoint_gradients(model, True)
    model.blocks[0].norm.register_forward_hook(lambda *_: calls.append(1))
    model(torch.randn(8, 4)).sum().backward()
    assert len(calls) == 2
    model.eval()
    model(torch.randn(8, 4)).sum().backward()
    with torch.no_grad():
        model.train()(torch.randn(8, 4))
    assert len(calls) == 4


def test_a_copy_computes_with_its_own_weights():
    model = Deep()
    checkpoint_gradients(model, True)
    other = copy.deepcopy(model)
    nn.init.zeros_(other.blocks[0].norm.weight)
    nn.init.constant_(other.blocks[0].norm.bias, 5.0)
    assert other.blocks[0].forward.__self__ is other.blocks[0]
    images = torch.randn(8, 4)
    assert not torch.allclose(model.eval()(images), other.eval()(images))


def test_names_and_state_stay_what_they_were():
    model, plain = Deep(), Deep()
    checkpoint_gradients(model, True)
    assert list(model.state_dict()) == list(plain.state_dict())
    assert [name for name, _ in model.named_modules()] == [name for name, _ in plain.named_modules()]


def test_the_outermost_of_those_that_a_pattern_means():
    assert checkpoint_gradients(Deep(), ["blocks"]) == ["blocks.0", "blocks.1", "blocks.2", "blocks.3"]
    assert checkpoint_gradients(Deep(), ["model.blocks.0", "*.norm"]) == [
        "blocks.0", "blocks.1.norm", "blocks.2.norm", "blocks.3.norm",
    ]  # fmt: skip
    assert checkpoint_gradients(Deep(), False) == checkpoint_gradients(Deep(), []) == []


def test_blocks_of_known_models():
    resnet = MODELS.build({"type": "resnet18", "num_classes": 10})
    assert list(blocks(resnet)) == [f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)]
    dense = MODELS.build({"type": "densenet121", "num_classes": 10})
    assert list(blocks(dense)) == [
        "features.denseblock1", "features.denseblock2", "features.denseblock3", "features.denseblock4",
    ]  # fmt: skip
    vit = MODELS.build({"type": "vit_b_16", "num_classes": 10, "image_size": 32})
    assert list(blocks(vit)) == [f"encoder.layers.encoder_layer_{number}" for number in range(12)]


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "swin_t", "convnext_tiny"])
def test_a_model_of_torchvision_learns_the_same(name):
    gradients = []
    for which in (False, True):
        torch.manual_seed(0)
        model = MODELS.build({"type": name, "num_classes": 3})
        checkpoint_gradients(model, which)
        model(torch.randn(2, 3, 32, 32)).square().mean().backward()
        gradients.append([*(parameter.grad for parameter in model.parameters()), *model.buffers()])
    assert_same(*gradients)


def test_compiled_it_learns_the_same():
    gradients = []
    for which in (False, ["1"]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.Sequential(nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)))
        checkpoint_gradients(model, which)
        compiled = torch.compile(model, backend="aot_eager")
        compiled(torch.randn(8, 4)).square().mean().backward()
        gradients.append([*(parameter.grad for parameter in model.parameters()), *model.buffers()])
    assert_same(*gradients)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (["layr1"], r"run\.gradient_checkpointing: the pattern 'layr1' matches no module of the model; did you mean"),
        (["0", "9.*"], r"the pattern '9\.\*' matches no module"),
        ("layer1", r"run\.gradient_checkpointing: expected bool or list\[str\], got 'layer1'"),
        ([1], r"run\.gradient_checkpointing: expected"),
        (1, r"run\.gradient_checkpointing: expected"),
        ([], r"run\.gradient_checkpointing: names no module"),
    ],
)
def test_what_means_nothing_is_a_mistake(value, message):
    model = {"type": "resnet18", "num_classes": 10} if value == ["layr1"] else {"type": "MLP", "image_size": 16}
    task = {"type": "Classification", "mean": [0.5], "std": [0.5]}
    with pytest.raises(ConfigError, match=message):
        check_config(config_from(tiny_config(run={"gradient_checkpointing": value}, model=model, task=task)))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # which is deprecated, and still in use
def test_what_torchscript_has_compiled_is_left_as_it_is():
    model = nn.Sequential(torch.jit.script(nn.Sequential(nn.Linear(2, 2), nn.ReLU())), nn.Linear(2, 2))
    assert checkpoint_gradients(model, False) == []
    assert checkpoint_gradients(model, True) == checkpoint_gradients(model, ["*"]) == ["1"]
    with pytest.raises(ConfigError, match="the pattern '0' matches no module of the model"):
        checkpoint_gradients(model, ["0"])
    model(torch.zeros(1, 2)).sum().backward()


def test_a_run_from_a_config_is_the_same(apart):
    states = []
    for which in (False, True, ["features"]):
        model = {"type": "ConvNet", "image_size": 16}
        runner = build_runner(tiny_config(run={"gradient_checkpointing": which, "epochs": 1}, model=model))
        runner.train()
        state = snapshot(runner)
        state.pop("config")
        states.append(state)
    assert_same(states[0], states[1])
    assert_same(states[0], states[2])
