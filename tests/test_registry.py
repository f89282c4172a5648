"""Who owns a name, when it is imported, and what is said when that fails."""

import os
import subprocess
import sys

import pytest
import torch
from installed import NET, install, models
from torch import nn

from visreg import DATASETS, HOOKS, LOSSES, MODELS, OPTIMIZERS, SCHEDULES, TASKS, TRANSFORMS
from visreg.component import Component
from visreg.errors import Location, PluginError, RegistryError
from visreg.plugin_file import load_file
from visreg.registry import KINDS, Registry, kind_of

PLUGIN_FILE = "from visreg import MODELS\n@MODELS.register\ndef filed_net(width: int = 2):\n    return width\n"


def loads_in_a_new_process(code, *unwanted):
    check = f"{code}\nimport sys\nassert not {set(unwanted)} & set(sys.modules), sorted(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)


# Precedence


def test_own_comes_before_plugin_and_plugin_before_adopted(site):
    install(
        site,
        "some-net",
        "2.1",
        models(MLP="some_net:MLP", resnet18="some_net:resnet18"),
        {"some_net": "resnet18 = MLP = list"},
    )
    assert MODELS.find("MLP").owner == "visreg"
    assert MODELS.find("resnet18") == Component("resnet18", "some_net:resnet18", "plugin", "some-net 2.1")
    assert [claim.source for claim in MODELS.claims("resnet18")] == ["plugin", "adopted"]
    assert [claim.source for claim in MODELS.claims("MLP")] == ["own", "plugin"]
    assert MODELS.claims("nobody") == []


def test_file_comes_before_adopted(site):
    (site / "mine.py").write_text("from visreg import MODELS\n@MODELS.register\ndef resnet18(): return 1\n")
    load_file(site / "mine.py")
    assert MODELS.find("resnet18").source == "file"


def test_two_plugins_with_one_name_are_an_error_that_names_both(site):
    for name in ("one", "two"):
        install(
            site,
            f"net-{name}",
            "1.0",
            models(SharedNet=f"net_{name}:SharedNet"),
            {f"net_{name}": NET.format(name="SharedNet")},
        )
    with pytest.raises(
        RegistryError, match=r"'SharedNet' is registered by net-.* and by net-.*uninstall one"
    ) as caught:
        MODELS.get("SharedNet")
    assert "net-one 1.0 (net_one:SharedNet)" in str(caught.value)
    assert "net-two 1.0 (net_two:SharedNet)" in str(caught.value)
    assert "SharedNet" in list(MODELS)
    assert MODELS.get("MLP")  # the others are not harmed


def test_one_package_found_twice_is_one(site):
    for folder in ("a", "b"):
        install(site / folder, "twice", "1.0", models(TwiceNet="twice:TwiceNet"))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site / "a"))
        patch.syspath_prepend(str(site / "b"))
        assert len(MODELS.claims("TwiceNet")) == 1


@pytest.mark.parametrize("taken", ["ConvNet", "PluggedNet"])
def test_file_cannot_take_a_name_of_visreg_or_of_a_plugin(site, taken):
    install(site, "plugged", "3.0", models(PluggedNet="plugged:PluggedNet"))
    (site / "mine.py").write_text(f"from visreg import MODELS\n@MODELS.register\ndef {taken}(): return 1\n")
    with pytest.raises(RegistryError, match=f"'{taken}' from .*mine.py is already registered by .*rename it"):
        load_file(site / "mine.py")


def test_two_files_cannot_have_one_name(site):
    for name in ("first.py", "second.py"):
        (site / name).write_text(PLUGIN_FILE)
    load_file(site / "first.py")
    with pytest.raises(RegistryError, match=r"second.py is already registered by .*first.py"):
        load_file(site / "second.py")
    assert MODELS.find("filed_net").owner == str(site / "first.py")


# Plugins


def test_plugin_is_imported_when_named_and_not_before(site):
    install(site, "lazy-net", "1.0", models(LazyNet="lazy_net:LazyNet"), {"lazy_net": NET.format(name="LazyNet")})
    assert "LazyNet" in MODELS
    assert "LazyNet" in list(MODELS)
    assert "lazy_net" not in sys.modules
    assert isinstance(MODELS.build({"type": "LazyNet", "width": 3}), nn.Linear)
    assert "lazy_net" in sys.modules
    del sys.modules["lazy_net"]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import no_such_thing", "ModuleNotFoundError: No module named 'no_such_thing'"),
        ("raise RuntimeError('half a plugin')", r"RuntimeError: half a plugin \(.*broken_net.py:1\)"),
        ("x = (", r"SyntaxError: .*\(.*broken_net.py:1\)"),
        ("raise SystemExit('no licence')", "SystemExit: no licence"),
        ("x = 1", "AttributeError: .*BrokenNet"),
    ],
)
def test_broken_plugin_harms_only_those_who_name_it(site, source, said):
    install(site, "broken-net", "0.3", models(BrokenNet="broken_net:BrokenNet"), {"broken_net": source})
    assert MODELS.get("ConvNet")
    with pytest.raises(PluginError, match=f"'BrokenNet': plugin broken-net 0.3 failed to import .*{said}") as caught:
        MODELS.get("BrokenNet")
    assert caught.value.exit_code == 8
    assert isinstance(caught.value.__cause__, (Exception, SystemExit))
    sys.modules.pop("broken_net", None)


@pytest.mark.parametrize("target", ["odd_net:VALUE", "odd_net"])
def test_plugin_that_is_no_class_is_broken(site, target):
    install(site, "odd-net", "1.0", models(OddNet=target), {"odd_net": "VALUE = 3"})
    with pytest.raises(PluginError, match=r"plugin odd-net 1\.0: odd_net:.* is not a class or function"):
        MODELS.get("OddNet")
    del sys.modules["odd_net"]


# Files


def test_file_registers_once_and_anew_when_it_changes(site):
    file = site / "mine.py"
    file.write_text(PLUGIN_FILE)
    load_file(file)
    first = MODELS.get("filed_net")
    load_file(file)
    assert MODELS.get("filed_net") is first
    file.write_text(PLUGIN_FILE.replace("filed_net", "renamed_net"))
    os.utime(file, ns=(1, 1))
    load_file(file)
    assert "filed_net" not in MODELS
    assert MODELS.build({"type": "renamed_net", "width": 5}) == 5


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("1 / 0", r"ZeroDivisionError: .*mine.py:5\)"),
        ("x = (", r"SyntaxError: .*mine.py:5\)"),
        ("raise SystemExit", "SystemExit"),
    ],
)
def test_file_that_fails_leaves_no_names_behind(site, end, said):
    (site / "mine.py").write_text(f"{PLUGIN_FILE}{end}\n")
    before = dict(MODELS.files), set(sys.modules)
    with pytest.raises(PluginError, match=f"plugin file .*mine.py failed: {said}"):
        load_file(site / "mine.py")
    assert (MODELS.files, {name for name in sys.modules if "mine" in name} - before[1]) == (before[0], set())


def test_file_that_fails_leaves_not_even_names_of_what_it_imported(site):
    (site / "mine.py").write_text(
        "import collections\nfrom visreg import MODELS\nMODELS.register(collections.Counter)\n1 / 0"
    )
    with pytest.raises(PluginError):
        load_file(site / "mine.py")
    assert "Counter" not in MODELS


def test_missing_file_is_named(tmp_path):
    with pytest.raises(PluginError, match=r"nowhere\.py does not exist"):
        load_file(tmp_path / "nowhere.py")


@pytest.mark.parametrize("module", ["nowhere", "__main__"])
def test_registers_what_has_no_file(module, monkeypatch):
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    shapes = Registry("shapes")
    made_at_a_prompt = {}
    exec("class Square:\n    pass", {"__name__": module}, made_at_a_prompt)
    shapes.register(made_at_a_prompt["Square"])
    assert shapes.get("Square") is made_at_a_prompt["Square"]


# Building


class Part:
    def __init__(self, size: int = 1) -> None:
        self.size = size


class Whole:
    def __init__(self, parts: list, spare: Part | None = None, factor: float = 1.0, scale: int = 0) -> None:
        if factor < 0:
            raise ArithmeticError("factor below zero")
        self.parts, self.spare, self.factor, self.scale = parts, spare, factor, scale


@pytest.fixture
def things():
    things = Registry("things")
    things.register(Part)
    things.register(Whole)
    return things


def test_children_are_built_before_parents(things):
    spec = {
        "type": "Whole",
        "parts": [{"type": "Part", "size": 2}, {"type": "Part"}],
        "spare": {"type": "Part", "size": 3},
    }
    whole = things.build(spec)
    assert [part.size for part in whole.parts] == [2, 1]
    assert whole.spare.size == 3
    assert spec["spare"] == {"type": "Part", "size": 3}  # the spec is left as it was


def test_context_reaches_whoever_has_a_parameter_for_it_and_the_spec_goes_first(things):
    whole = things.build({"type": "Whole", "parts": [{"type": "Part"}]}, size=7, scale=4)
    assert (whole.parts[0].size, whole.scale) == (7, 4)
    assert things.build({"type": "Whole", "parts": [], "scale": 9}, scale=4).scale == 9


def test_constructor_that_fails_tells_spec_place_and_arguments(things):
    with pytest.raises(ArithmeticError) as caught:
        things.build({"type": "Whole", "parts": [], "factor": -1.5}, Location("cnn.py", 12))
    assert caught.value.__notes__ == ["while building 'Whole' from things at cnn.py:12 with parts=[], factor=-1.5"]


def test_nested_spec_is_looked_up_where_its_annotation_says():
    assert kind_of("Sequence[Dataset]", MODELS) is DATASETS
    assert kind_of(torch.optim.Optimizer, MODELS) is OPTIMIZERS
    assert kind_of(list[torch.optim.lr_scheduler.LRScheduler], MODELS) is SCHEDULES
    assert kind_of(nn.Module, MODELS) is MODELS
    assert kind_of(nn.Module, TASKS, "loss") is LOSSES  # of a task in a task


# Names


@pytest.mark.parametrize(
    ("registry", "name", "said"),
    [
        (MODELS, "ConvNett", "'ConvNett' is not among the models; did you mean 'ConvNet'"),
        (OPTIMIZERS, "adamw", "did you mean 'AdamW'"),
        (HOOKS, "resnet18", "is not among the hooks; it is one of the models"),
        (MODELS, "zzzzzz", "`visreg list models` shows all"),
        (TASKS, "zzzzzz", "choose from Classification"),
    ],
)
def test_unknown_name_gets_advice(registry, name, said):
    with pytest.raises(RegistryError, match=said) as caught:
        registry.get(name)
    assert caught.value.exit_code == 2


def test_registry_lists_its_names_in_order():
    names = list(KINDS["optimizers"])
    assert names == sorted(names)
    assert {"SGD", "AdamW"} <= set(names)
    assert 3 not in MODELS
    assert repr(HOOKS) == f"Registry('hooks', {len(list(HOOKS))} names)"


def test_adopted_names_are_known_without_importing_their_library():
    loads_in_a_new_process("from visreg import MODELS; assert 'resnet18' in MODELS", "torch", "torchvision")
    loads_in_a_new_process("from visreg import TRANSFORMS; assert 'Resize' in list(TRANSFORMS)", "torch", "torchvision")
    loads_in_a_new_process("from visreg import LOSSES; LOSSES.get('CrossEntropyLoss')", "torchvision")


@pytest.mark.parametrize("kind", KINDS)
def test_every_name_leads_to_a_class_or_function_of_that_name(kind):
    for name in KINDS[kind]:
        factory = KINDS[kind].get(name)
        assert callable(factory)
        assert factory.__name__ == name


def test_components_say_where_they_are_from():
    assert str(TRANSFORMS.find("Resize")) == "torchvision (torchvision.transforms.v2:Resize)"
    assert LOSSES.find("MSELoss").source == "adopted"
