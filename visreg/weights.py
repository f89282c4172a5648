"""Weights to begin from: put where they belong in a model, and told of."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from attrs import define, field, frozen
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from visreg.errors import CheckpointError, first
from visreg.weights_file import Weights, read_weights

logger = logging.getLogger("visreg")

FEW = 0.1  # of the tensors that file and model could share: with fewer it is another model; under another prefix,
ENOUGH = 0.5  # where a few names may be the same by chance, so many are asked for
MOST = 0.8  # of the file's names have a prefix that is replaced by another
LISTED = 8  # names of a kind that a report gives


@frozen(eq=False)
class Report:
    """What became of each tensor of some weights, and of the model that took them.

    Attributes:
        weights: what was to be taken.
        loaded: the model's tensors that now have the file's values.
        reshaped: those that the file has in another shape, which is given first, and that are as they were.
        missing: those that the file lacks, and that are as they were.
        unused: the file's tensors that the model has no place for.
        place: the part of the model that the weights are of; empty for all of it.
    """

    weights: Weights
    loaded: Sequence[str]
    reshaped: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    missing: Sequence[str]
    unused: Sequence[str]
    place: str = ""

    def __str__(self) -> str:
        count = len(self.loaded) + len(self.reshaped) + len(self.missing)
        place = f"; they are those of {self.place}" if self.place else ""
        lines = [f"{len(self.loaded)} of the model's {count} tensors begin as in {self.weights.name}{place}"]
        shapes = [f"{name} {before} → {now}" for name, (before, now) in self.reshaped.items()]
        for what, names in (
            ("begin anew, being of another shape there", shapes),
            ("begin anew, not being there", _modules(self.missing, [*self.loaded, *self.reshaped])),
            ("there, and not of this model", _modules(self.unused, ())),
        ):
            if names:
                lines.append(f"{what}: {', '.join(first(names, LISTED))}")
        return "\n  ".join(lines)

    @property
    def whole(self) -> bool:
        """Whether all of the file, outputs included, is now in all of the model."""
        return not (self.reshaped or self.missing or self.unused)


@define(eq=False)
class InitialWeights:
    """What to do about the weights that a config's models name.

    Attributes:
        mode: ``"read"`` them; only ``"check"`` that they can be; or ``"leave"`` them, as a checkpoint's will follow.
        reports: what came of it, in order.
    """

    mode: str = "read"
    reports: list[Report] = field(factory=list)

    def take_file(self, model: nn.Module, path: str) -> None:
        """Give ``model`` the weights in a file.

        Raises:
            CheckpointError: if they cannot be read, or are of another model.
            ValueError: the same, where it is only checked.
        """
        if self.mode == "leave":
            return
        try:
            weights = read_weights(path, "cpu" if self.mode == "read" else "meta")
            if self.mode == "read":
                self.reports.append(load_weights(model, weights))
            else:
                _fitting(model.state_dict(), weights)
        except CheckpointError as error:
            if self.mode == "read":
                raise
            raise ValueError(f"weights: {error}") from error


def load_weights(model: nn.Module, weights: Weights) -> Report:
    """Give ``model`` those of ``weights`` that it has a place for, by name and shape, and leave the others as they are.

    Names may have a prefix, such as ``module.``, that the model's lack, or the other way round: so a classifier's
    weights are also taken up by the backbone of a detector. Of all prefixes the one counts by which most tensors fit.

    Raises:
        CheckpointError: if hardly any tensor fits; the model is as it was.
    """
    before = model.state_dict()
    drop, add, reshaped = _fitting(before, weights)
    state = OrderedDict((_moved(name, drop, add), value) for name, value in weights.tensors.items())
    unshaped = OrderedDict((name, value) for name, value in state.items() if name not in reshaped)
    # With it, modules take up states of their older versions.
    unshaped._metadata = {  # type: ignore[attr-defined]  # torch's own way to keep it
        _moved(name and f"{name}.", drop, add).removesuffix("."): value for name, value in weights.metadata.items()
    }
    try:
        missing, unexpected = model.load_state_dict(unshaped, strict=False)
    except RuntimeError as error:
        raise CheckpointError(f"{weights.name}: cannot be taken up: {error}") from error
    lost = {*missing, *_uncounted(before, missing)} - reshaped.keys()
    unused = [name for name in weights.tensors if _moved(name, drop, add) in set(unexpected)]
    loaded = [name for name in before if name not in reshaped and name not in lost]
    return Report(weights, loaded, reshaped, [name for name in before if name in lost], unused, add.removesuffix("."))


def _uncounted(names: Iterable[str], missing: Iterable[str]) -> set[str]:
    """Return the batch norms' counts of batches, which torch never calls missing, where their statistics are."""
    counts = {f"{name.removesuffix('running_mean')}num_batches_tracked" for name in missing if "running_mean" in name}
    return counts & set(names)


def _modules(names: Iterable[str], others: Iterable[str]) -> list[str]:
    """Return ``names``, in place of those of whole modules, which hold none of the ``others``, the modules' names.

    >>> _modules(["head.fc.weight", "head.fc.bias", "body.0.bias"], ["body.0.weight"])
    ['head', 'body.0.bias']
    """
    begun = {name[:place] for name in others for place in range(len(name)) if name[place] == "."}
    parts = [name.split(".") for name in names]
    ways = [[".".join(part[:end]) for end in range(1, len(part))] for part in parts]
    found = [
        next((way for way in each if way not in begun), ".".join(part)) for each, part in zip(ways, parts, strict=True)
    ]
    return list(dict.fromkeys(found))


Shapes = dict[str, tuple[tuple[int, ...], tuple[int, ...]]]


def _fitting(model: Mapping[str, Tensor], weights: Weights) -> tuple[str, str, Shapes]:
    """Return which prefix of the names to drop, which to add, and the tensors whose shapes then differ.

    Raises:
        CheckpointError: if hardly any tensor fits.
    """
    known = {name: value for name, value in model.items() if isinstance(value, Tensor)}
    drop, add = _prefixes(known, weights.tensors)
    pairs = {_moved(name, drop, add): value for name, value in weights.tensors.items()}
    shared = {name: value for name, value in pairs.items() if name in known}
    reshaped: Shapes = {
        name: (tuple(value.shape), tuple(known[name].shape))
        for name, value in shared.items()
        if not is_lazy(known[name]) and value.shape != known[name].shape
    }
    fit = len(shared) - len(reshaped)
    if fit == 0 or fit < min(len(known), len(weights.tensors)) * (ENOUGH if drop or add else FEW):
        names = [", ".join(first(each, 4)) for each in (weights.tensors, known)]
        told = {} if drop or add else reshaped
        shapes = [f"{name} is {before} there, and {now} here" for name, (before, now) in told.items()]
        lines = [f"{weights.name}: the weights of another model: {fit} of its {len(weights.tensors)} tensors fit"]
        raise CheckpointError("; ".join([*lines, f"it has {names[0]}", f"the model has {names[1]}", *first(shapes, 4)]))
    return drop, add, reshaped


def _prefixes(model: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> tuple[str, str]:
    """Return which prefix of the tensors' names to drop, and which to add, so that most of them fit the model."""
    ends = defaultdict(list)
    for name, value in model.items():
        if not is_lazy(value) and value.ndim:
            ends[name.rpartition(".")[2], value.shape].append(name)
    lazy = sum(name in model and is_lazy(model[name]) for name in tensors)
    votes: Counter[tuple[str, str]] = Counter({("", ""): lazy})
    for name, value in tensors.items():
        votes.update(_difference(name, other) for other in ends.get((name.rpartition(".")[2], value.shape), ()))
    # Else one layer of the file could be taken for another of the model.
    whole = Counter(drop for drop in {drop for drop, _ in votes} for name in tensors if name.startswith(drop))
    votes = Counter({pair: votes[pair] for pair in votes if not pair[1] or whole[pair[0]] >= MOST * len(tensors)})
    return min(votes, key=lambda pair: (-votes[pair], len("".join(pair)), pair))


def _difference(one: str, other: str) -> tuple[str, str]:
    """Return what two names begin with, in front of what they share at the end.

    >>> _difference("module.conv.weight", "conv.weight"), _difference("fc.bias", "head.fc.bias")
    (('module.', ''), ('', 'head.'))
    """
    parts, others = one.split("."), other.split(".")
    while parts and others and parts[-1] == others[-1]:
        parts.pop()
        others.pop()
    return "".join(f"{part}." for part in parts), "".join(f"{part}." for part in others)


def _moved(name: str, drop: str, add: str) -> str:
    return add + name.removeprefix(drop) if name.startswith(drop) else name


def tell(report: Report, task: nn.Module, classes: Sequence[str]) -> None:
    """Log what became of some weights, and warn where they were made for other images or other classes.

    Args:
        report: the one to tell.
        task: what the model is part of.
        classes: the names of the data's.
    """
    logger.info("%s", report)
    weights, model = report.weights, getattr(task, "model", None)
    transform = getattr(model, "transform", None)  # torchvision's detectors normalise by themselves
    for name in ("mean", "std"):
        own = getattr(transform, f"image_{name}", getattr(task, name, None))
        wanted = getattr(weights, name)
        if wanted is None or own is None:
            continue
        own = own.flatten().tolist() if isinstance(own, Tensor) else list(own)
        if _differ(own, wanted):
            values = [[round(value, 4) for value in each] for each in (wanted, own)]
            message = "%s was trained on images whose %s is %s, and here it is %s: give the task the same"
            logger.warning(message, weights.name, name, *values)
    if weights.classes and classes and report.whole and list(weights.classes) != list(classes):
        known, now = (", ".join(first(each, 5)) for each in (weights.classes, classes))
        logger.warning("%s has outputs for %s, which begin as those for %s", weights.name, known, now)


def _differ(one: Iterable[float], other: Iterable[float]) -> bool:
    """Return whether two lists of means or deviations are not the same; one number stands for any channels."""
    values, others = list(one), list(other)
    count = max(len(values), len(others))
    values, others = (each * (count if len(each) == 1 else 1) for each in (values, others))
    return len(values) != len(others) or any(abs(a - b) > 0.01 for a, b in zip(values, others, strict=True))
