"""Parameter groups: who is in which, and how few there are."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from visreg.optimizers.groups import param_groups
from visreg.task import Task


class Wrapped(Task):
    def __init__(self, model):
        super().__init__()
        self.model = model
        self.loss = nn.Linear(1, 1, bias=False)  # some losses learn too

    def forward(self, batch):
        raise NotImplementedError

    predict = forward


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.attention = nn.MultiheadAttention(4, 1)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.position = nn.Parameter(torch.zeros(4))
        self.layers = nn.Sequential(Block(), Block())
        self.norm = nn.LayerNorm(4)


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(4))
        self.patches = nn.Linear(4, 4)
        self.encoder = Encoder()
        self.head = nn.Linear(4, 2)


def convnet():
    model = nn.Sequential()
    model.features = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 3, 3))
    model.head = nn.Linear(3, 2)
    return model


def by_name(module, **options):
    """Return (lr, weight_decay) of each parameter."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    groups = param_groups(module, **{"lr": 1.0, "weight_decay": 0.5, **options})
    placed = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(placed) == sorted(names)  # each once
    return {names[id(p)]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}


def test_without_options_there_is_one_group_in_order():
    model = convnet()
    (group,) = param_groups(model, lr=0.1, weight_decay=0.2)
    assert [id(parameter) for parameter in group["params"]] == [id(parameter) for parameter in model.parameters()]
    assert (group["lr"], group["weight_decay"]) == (0.1, 0.2)


@pytest.mark.parametrize(
    ("no_decay", "spared"),
    [
        (["norm"], {"features.1.weight", "features.1.bias"}),
        (["bias"], {"features.0.bias", "features.1.bias", "features.3.bias", "head.bias"}),
        (["head"], {"head.weight", "head.bias"}),
        (["features.[03].weight"], {"features.0.weight", "features.3.weight"}),
        (["*.weight"], {"features.0.weight", "features.1.weight", "features.3.weight", "head.weight"}),
    ],
)
def test_no_decay(no_decay, spared):
    model = convnet()
    assert {name for name, (_, decay) in by_name(model, no_decay=no_decay).items() if not decay} == spared
    assert len(param_groups(model, lr=1.0, weight_decay=0.5, no_decay=no_decay)) == 2


def test_every_bias_is_one_whatever_its_prefix():
    found = by_name(Transformer(), no_decay=["bias"])
    assert found["encoder.layers.0.attention.in_proj_bias"][1] == 0
    assert found["encoder.layers.0.attention.in_proj_weight"][1] == 0.5


def test_lr_scale_takes_the_longest_pattern():
    found = by_name(Wrapped(convnet()), lr_scale={"model": 0.1, "model.features.3": 0.5, "*.head.*": 10})
    assert found["model.features.0.weight"][0] == 0.1
    assert found["model.features.3.weight"][0] == 0.5
    assert found["model.head.bias"][0] == 10
    assert found["loss.weight"][0] == 1.0


@pytest.mark.parametrize("option", ["lr_scale", "no_decay"])
def test_a_pattern_without_parameters_is_refused(option):
    value = {"lr_scale": {"featurs": 0.1}, "no_decay": ["featurs"]}[option]
    with pytest.raises(ValueError, match=rf"{option}: 'featurs' matches no parameter; did you mean 'features'\?"):
        by_name(convnet(), **{option: value})


def test_layer_decay_counts_from_the_output():
    found = by_name(Wrapped(convnet()), layer_decay=0.5)
    assert {name: lr for name, (lr, _) in found.items() if name.endswith("weight")} == {
        "model.features.0.weight": 0.25,
        "model.features.1.weight": 0.25,  # norms go with the layer before them
        "model.features.3.weight": 0.5,
        "model.head.weight": 1.0,
        "loss.weight": 1.0,
    }


def test_layer_decay_of_a_transformer():
    found = {name: lr for name, (lr, _) in by_name(Transformer(), layer_decay=0.5).items()}
    assert found["token"] == found["encoder.position"] == found["patches.weight"] == 0.125
    assert found["encoder.layers.0.norm.weight"] == found["encoder.layers.0.attention.out_proj.bias"] == 0.25
    assert found["encoder.layers.1.attention.in_proj_weight"] == found["encoder.norm.bias"] == 0.5
    assert found["head.weight"] == 1.0


def test_layer_decay_of_torchvisions_models():
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        resnet = {name: lr for name, (lr, _) in by_name(models.resnet18(), layer_decay=0.5).items()}
        vit = {name: lr for name, (lr, _) in by_name(models.vit_b_16(), layer_decay=0.5).items()}
    assert resnet["conv1.weight"] == resnet["bn1.weight"] == 0.5**9  # eight blocks and the last layer follow
    assert resnet["layer4.1.conv1.weight"] == 0.5
    assert resnet["fc.weight"] == 1.0
    assert vit["class_token"] == vit["encoder.pos_embedding"] == vit["conv_proj.weight"] == 0.5**13
    assert vit["encoder.layers.encoder_layer_11.mlp.0.weight"] == vit["encoder.ln.weight"] == 0.5


def test_all_together_make_few_groups():
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        model = models.resnet18()
    groups = param_groups(
        model, lr=1.0, weight_decay=0.1, no_decay=["norm", "bias"], lr_scale={"fc": 10}, layer_decay=0.5
    )
    assert len(groups) == 2 * 10
    torch.optim.SGD(groups, lr=1.0)


def test_frozen_and_shared_parameters():
    model = convnet()
    model.head.weight.requires_grad_(False)
    model.other = model.head
    assert "head.weight" in by_name(model)
