"""What a component takes, and which values fit."""

import enum
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, Union

import pytest
import torch
from attrs import Converter, define, field, validators
from torch import Tensor, nn
from torchvision.transforms.v2 import InterpolationMode

from visreg import DATASETS, MODELS, TRANSFORMS
from visreg.annotations import UNKNOWN, describe, fit, matches
from visreg.options import Option, open_ended, options_of, problems, value_problems
from visreg.registry import KINDS

ADOPTED = [
    (kind, name) for kind, registry in KINDS.items() for name in registry if registry.find(name).source == "adopted"
]


class Colour(enum.Enum):
    RED = "r"
    CRIMSON = "r"  # noqa: PIE796  an alias
    BLUE = 3


# Which values fit which annotation: the first list does, the second does not.
FITTING = [
    (int, [1, 0, -3], [True, 1.0, "1", None, [1]]),
    (float, [1, 0.5, float("inf")], [True, "1.0", None]),
    (bool, [True, False], [0, 1, "yes", None]),
    (str, ["", "a"], [1, None, ["a"]]),
    (None | int, [None, 1], ["a", 1.5]),
    (Optional[str], ["a", None], [1]),  # noqa: UP045  as libraries write it
    (Union[int, tuple[int, int]], [1, (1, 2), [1, 2]], ["a", (1,), (1, "b"), (1, 2, 3)]),  # noqa: UP007  likewise
    (Literal["a", 1], ["a", 1], ["b", True, 2, None]),
    (Annotated[int, "of pixels"], [1], ["a"]),
    (tuple[int, ...], [(), (1,), [1, 2]], [("a",), 1, "12"]),
    (tuple[int, str], [(1, "a"), [1, "a"]], [("a", 1), (1,)]),
    (tuple, [(), [1, "a"]], [1, "ab"]),
    (list[int], [[], [1], (1, 2)], [["a"], 1, {"a": 1}]),
    (Sequence[float], [[1, 0.5], ()], [["a"], "abc", 1, {}]),
    (Sequence[str], [["a"], ()], ["abc", [1]]),
    (Mapping[str, float], [{}, {"a": 1}], [{"a": "b"}, [("a", 1)], 1]),
    (dict, [{}, {"a": [1]}], [1, []]),
    (Tensor, [[1, 2.5], [[1], [2]], []], ["a", 1, ["a"], [True]]),
    (InterpolationMode, ["bilinear", "BILINEAR", InterpolationMode.BOX], ["sinc", 2, None]),
    (Union[InterpolationMode, int], ["nearest", 2], ["sinc", 1.5]),  # noqa: UP007
    (Colour, ["red", "r", "crimson", "Colour.RED", "3"], ["green", 3]),
    (Path, ["a/b"], [1, None]),
    (nn.Module, [{"type": "ReLU"}, nn.ReLU()], [1, "ReLU", [], {"inplace": True}]),
    (Optional[nn.Module], [None, {"type": "ReLU"}], ["ReLU"]),  # noqa: UP045
    (Sequence[nn.Module], [[{"type": "ReLU"}], []], [["ReLU"], [1], "ReLU"]),
    (Callable[..., Any], [len, {"type": "ReLU"}], [1, "len"]),
    (int | None, [1], [{"type": "ReLU"}]),
    (Any, [1, None, {"type": "x"}], []),
    (UNKNOWN, [1, None], []),
    ("NotYetDefined", [1, None], []),
]


@pytest.mark.parametrize(("annotation", "good", "bad"), FITTING, ids=lambda value: str(value)[:30])
def test_values_fit_their_annotation_or_do_not(annotation, good, bad):
    assert [value for value in good if not matches(value, annotation)] == []
    assert [value for value in bad if matches(value, annotation)] == []


@pytest.mark.parametrize(
    ("value", "annotation", "fitted"),
    [
        ([1, 2], tuple[int, int], (1, 2)),
        ([1, 2], int | tuple[int, int], (1, 2)),
        ([1, 2], Sequence[int], [1, 2]),
        ([1, 2], list[int] | tuple[int, int], [1, 2]),
        ("bilinear", InterpolationMode, InterpolationMode.BILINEAR),
        ("bilinear", InterpolationMode | int, InterpolationMode.BILINEAR),
        ("crimson", Colour, Colour.RED),
        ("a/b", Path, Path("a/b")),
        ("a/b", str | Path, "a/b"),
        ("a", str, "a"),
        (3, float, 3),
        (3, int, 3),
        (True, float, True),
    ],
)
def test_values_are_made_to_fit(value, annotation, fitted):
    made = fit(value, annotation)
    assert made == fitted
    assert type(made) is type(fitted)


def test_numbers_become_a_tensor():
    made = fit([1, 2.5], Tensor | None)
    assert torch.equal(made, torch.tensor([1, 2.5]))
    assert made.dtype == torch.get_default_dtype()


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int | None, "int or None"),
        (Literal["fp32", "bf16"], "'fp32' or 'bf16'"),
        (tuple[int, int], "tuple[int, int]"),
        (nn.Module, "a dict(type=…) that makes a Module"),
        (Tensor, "a list of numbers"),
        (Path, "str"),
        (Colour, "'red' or 'blue'"),
        (Callable[[int], int], "Callable"),
    ],
)
def test_what_is_expected_is_said_in_words(annotation, words):
    assert describe(annotation) == words


# Signatures


class Base:
    def __init__(self, width: int, depth: int = 2) -> None: ...


class Derived(Base):
    def __init__(self, name: str = "x", **kwargs: Any) -> None: ...


def test_keyword_arguments_that_are_passed_on_are_options_too():
    known = options_of(Derived)
    assert list(known) == ["name", "width", "depth"]
    assert known["width"].inner
    assert not known["width"].required  # Derived may give it itself
    assert not open_ended(Derived)
    assert list(problems(Derived, {"wdth": 1})) == [("wdth", "no such option; did you mean 'width'?")]


def test_a_function_passes_on_to_what_it_returns():
    known = options_of(MODELS.get("resnet18"))
    assert {"weights", "progress", "num_classes", "zero_init_residual"} <= set(known)
    assert known["num_classes"].default == 1000
    assert list(problems(MODELS.get("resnet18"), {"num_classes": 10, "zero_init_residual": True})) == []
    assert list(problems(MODELS.get("resnet18"), {"num_clases": 10})) == [
        ("num_clases", "no such option; did you mean 'num_classes'?")
    ]
    assert list(problems(MODELS.get("resnet18"), {"weights": "DEFAULT"})) == []
    assert list(problems(MODELS.get("resnet18"), {"weights": "BEST"}))


def test_open_ended_component_takes_any_name():
    def anything(**kwargs): ...

    assert open_ended(anything)
    assert list(problems(anything, {"whatever": 1})) == []


def test_missing_given_and_offered_options():
    def component(params: list, lr: float, root: str): ...

    assert list(problems(component, {}, given=["params"], offered=["root"])) == [("lr", "missing; it has no default")]
    assert list(problems(component, {"params": [], "lr": 1.0, "root": "a"}, given=["params"])) == [
        ("params", "is set by visreg, not by a config; remove it")
    ]
    # What is missing is there, misspelt: one mistake, not two.
    assert list(problems(component, {"lrr": 1.0, "params": [], "root": ""}, given=["params"]))[:1] == [
        ("lrr", "no such option; did you mean 'lr'?")
    ]


def test_default_without_annotation_tells_the_type():
    def component(momentum=0.9, nesterov=False, betas=(0.9, 0.999), name="x"): ...

    assert list(problems(component, {"momentum": 1, "nesterov": True, "betas": [1, 2], "name": None})) == []
    assert list(problems(component, {"momentum": "0.9", "nesterov": 1})) == [
        ("momentum", "expected float or tuple or list or None, got '0.9'"),
        ("nesterov", "expected bool, got 1"),
    ]


# attrs


def _positive(instance, attribute, value):
    if value <= 0:
        raise ValueError("size: must be above 0, got " + str(value))


def _like_other(instance, attribute, value):
    if value != instance.other:
        raise ValueError("must be like other")


@define(kw_only=True)
class Hooked:
    _hidden: int = field(default=0, alias="shown")
    state: int = field(default=0, init=False)
    items: list[int] = field(factory=list)
    tuples: Any = field(default=(), converter=tuple, validator=validators.instance_of(tuple))
    other: int = 0
    like_other: int = field(default=0, validator=_like_other)
    size: Any = field(default=1, validator=_positive, converter=Converter(int))


def test_attrs_classes_are_known_by_their_arguments():
    known = options_of(Hooked)
    assert list(known) == ["shown", "items", "tuples", "other", "like_other", "size"]
    assert known["shown"].attribute.name == "_hidden"
    assert list(problems(Hooked, {"tuples": [1]})) == []  # its converter comes first
    assert list(problems(Hooked, {"like_other": 3})) == []  # nobody can tell before it is built
    assert list(problems(Hooked, {"size": -2})) == [("size", "must be above 0, got -2")]


SAID = [
    (validators.ge(1), 0, "must be >= 1, got 0"),
    (validators.gt(0.5), 0.5, "must be > 0.5, got 0.5"),
    (validators.le(1), 2.5, "must be <= 1, got 2.5"),
    (validators.lt(1), 1, "must be < 1, got 1"),
    (validators.min_len(1), "", "length must be >= 1, got ''"),
    (validators.max_len(1), [1, 2], "length must be <= 1, got [1, 2]"),
    (validators.in_(["x", "y"]), "q", "must be in ['x', 'y'], got 'q'"),
    (validators.instance_of(int), "a: b", "must be int, got 'a: b'"),
    (validators.instance_of((int, list)), "a", "must be int or list, got 'a'"),
    (validators.optional(validators.gt(0)), -1, "must be > 0, got -1"),
    (validators.and_(validators.ge(0), validators.le(1)), 2, "must be <= 1, got 2"),
    (validators.is_callable(), 3, "must be callable, got 3"),
    (validators.matches_re("auto|cpu"), "gpu: 1", "must match regex 'auto|cpu', got 'gpu: 1'"),
    (validators.deep_iterable(validators.ge(1)), [1, 0], "must be >= 1, got 0 in [1, 0]"),
    (
        validators.deep_mapping(validators.instance_of(str), validators.gt(0)),
        {"a": 0},
        "must be > 0, got 0 in {'a': 0}",
    ),
]


@pytest.mark.parametrize(("validator", "value", "said"), SAID, ids=lambda value: str(value)[:40])
def test_every_validator_of_attrs_is_put_in_plain_words(validator, value, said):
    attrs_class = define(
        type("Component", (), {"option": field(validator=validator), "__annotations__": {"option": Any}})
    )
    assert list(problems(attrs_class, {"option": value})) == [("option", said)]


@pytest.mark.parametrize(
    "validator", [validators.or_(validators.ge(3), validators.in_([1])), validators.not_(validators.ge(0))]
)
def test_combined_validators_name_neither_attribute_nor_class(validator):
    attrs_class = define(
        type("Component", (), {"option": field(validator=validator), "__annotations__": {"option": Any}})
    )
    ((_, said),) = problems(attrs_class, {"option": 0})
    assert said.endswith(", got 0")
    assert not re.search(r"'option'|<class", said)


# Everything that is adopted


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(("kind", "name"), ADOPTED, ids=lambda part: part)
def test_options_of_everything_adopted_are_readable(kind, name):
    for option in options_of(KINDS[kind].get(name)).values():
        assert not isinstance(option.annotation, str), f"{option.name}: {option.annotation!r} was not understood"
        if option.default is not UNKNOWN:
            assert list(value_problems(option, option.default)) == []
            assert option.annotation is UNKNOWN or matches(option.default, option.annotation), option
        assert describe(option.annotation)


def test_enums_of_transforms_can_be_written():
    assert list(problems(TRANSFORMS.get("Resize"), {"size": 32, "interpolation": "bicubic"})) == []
    assert TRANSFORMS.build({"type": "Resize", "size": [32, 32], "interpolation": "bicubic"}).inner.size == [32, 32]
    ((option, said),) = problems(TRANSFORMS.get("AutoAugment"), {"policy": "mnist"})
    assert option == "policy"
    assert said == "expected 'imagenet' or 'cifar10' or 'svhn', got 'mnist'"


def test_datasets_pass_on_to_their_base():
    assert (
        list(problems(DATASETS.get("EMNIST"), {"root": "", "split": "letters", "train": False, "download": True})) == []
    )


def test_option_is_required_where_nobody_gives_it():
    assert Option("lr").required
    assert not Option("lr", default=None).required
    assert not Option("lr", inner=True).required


def test_a_misspelt_option_is_found_even_where_any_name_is_taken():
    def model(width=1, weights_backbone=None, **options): ...

    assert dict(problems(model, {"weights_backboue": None})) == {
        "weights_backboue": "no such option; did you mean 'weights_backbone'?"
    }
    assert not dict(problems(model, {"fixed_size": [3, 3], "withs": 1}))
