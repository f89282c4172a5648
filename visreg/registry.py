"""Names for things: a registry maps a name to the class or function that makes a component.

A component is a plain class or function, registered under its own name. It joins in one of four ways, and is imported
only when somebody asks for its name:

own       a line in the table of its zoo folder, such as ``visreg/models/__init__.py``
plugin    a line in the ``pyproject.toml`` of an installed package, under the entry-point group ``visreg.models``
file      the decorator ``@MODELS.register`` in a file that a config lists under ``plugins``
adopted   by being torch's or torchvision's own, such as ``SGD`` or ``resnet18``

Names are looked up in that order, the middle two being of one rank. Two owners of one rank are an error.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from visreg.annotations import fit
from visreg.component import Component, installed
from visreg.errors import Location, RegistryError, VisregError, nearest, suggest
from visreg.options import options_of
from visreg.specs import Spec, is_spec

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from visreg.data import Dataset, Transform
    from visreg.hook import Hook
    from visreg.metric import Metric
    from visreg.sampler import Sampler
    from visreg.task import Task

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class Registry(Generic[T]):
    """A table from names to factories of ``T``.

    >>> SHAPES = Registry("shapes")
    >>> @SHAPES.register
    ... def circle(radius: float) -> str:
    ...     return f"circle of radius {radius}"
    >>> SHAPES.build({"type": "circle", "radius": 2.0})
    'circle of radius 2.0'
    """

    def __init__(self, kind: str, adapter: str = "") -> None:
        """Make an empty table; ``adapter`` names what turns a factory that is not made for visreg into one that is."""
        self.kind = kind
        self._adapter = adapter
        self._own: dict[str, Component] = {}
        self.files: dict[str, Component] = {}  # what `register` has filed
        self._adopted: list[tuple[str, Callable[[], Mapping[str, str]]]] = []

    def __repr__(self) -> str:
        return f"Registry({self.kind!r}, {len(list(self))} names)"

    def __iter__(self) -> Iterator[str]:
        """Yield every known name, sorted; no component is imported."""
        adopted = (name for _, names in self._adopted for name in names())
        return iter(sorted({*self._own, *self.files, *installed(self.kind), *adopted}))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.find(name) is not None

    def own(self, package: str, table: Mapping[str, str]) -> None:
        """File visreg's own components: the names in each module of a zoo folder, separated by spaces."""
        for module, names in table.items():
            for name in names.split():
                self._own[name] = Component(name, f"{package}.{module}:{name}", "own", "visreg")

    def adopt(self, distribution: str, names: Callable[[], Mapping[str, str]]) -> None:
        """File another library's components; ``names`` tells name and target of each without importing it."""
        self._adopted.append((distribution, names))

    def register(self, factory: F) -> F:
        """File a class or function under its own name; for a file that a config lists under ``plugins``.

        Raises:
            RegistryError: if the name is taken by visreg, an installed plugin or another file.
        """
        name, owner = factory.__name__, _file_of(factory)
        taken = [other for other in self.claims(name) if other.source != "adopted" and other.owner != owner]
        if taken:
            raise RegistryError(f"{self.kind}: {name!r} from {owner} is already registered by {taken[0]}; rename it")
        self.files[name] = Component(name, f"{factory.__module__}:{name}", "file", owner, factory)
        return factory

    def forget(self, owner: str) -> None:
        """Drop what the file ``owner`` registered, so that it can be read anew."""
        self.files = {name: component for name, component in self.files.items() if component.owner != owner}

    def claims(self, name: str) -> list[Component]:
        """Return everybody who has ``name``, in order of precedence; nothing is imported."""
        adopted = [(owner, names()[name]) for owner, names in self._adopted if name in names()]
        first = [table[name] for table in (self._own, self.files) if name in table]
        last = [Component(name, target, "adopted", owner) for owner, target in adopted]
        return [*first, *installed(self.kind).get(name, ()), *last]

    def find(self, name: str) -> Component | None:
        """Return whose ``name`` is, or None; nothing is imported.

        Raises:
            RegistryError: if two plugins, or a plugin and a file, have the name.
        """
        if name in self._own:  # whoever else has it
            return self._own[name]
        claims = self.claims(name)
        rivals = [other for other in claims if other.source in ("file", "plugin")]
        if len(rivals) > 1:
            owners = " and by ".join(map(str, rivals))
            raise RegistryError(f"{self.kind}: {name!r} is registered by {owners}; uninstall one")
        return claims[0] if claims else None

    def get(self, name: str) -> Callable[..., T]:
        """Return the factory called ``name``, importing it if need be.

        Raises:
            RegistryError: if nobody has the name; the message offers the nearest ones, and other kinds that have it.
            PluginError: if the plugin that has it fails to import.
        """
        component = self.find(name)
        if component is None:
            raise RegistryError(f"{name!r} is not among the {self.kind}{self._hint(name)}")
        return component.load()

    def _hint(self, name: str) -> str:
        elsewhere = [registry.kind for registry in KINDS.values() if registry is not self and registry.claims(name)]
        if elsewhere:
            return f"; it is one of the {' and '.join(elsewhere)}"
        near = nearest(name, self, limit=3)
        if near or len(list(self)) < 12:
            return suggest(name, near or self)
        return f"; `visreg list {self.kind}` shows all {len(list(self))}"

    def build(self, spec: Spec, location: Location | None = None, **context: object) -> T:
        """Build the component that ``spec`` describes, its nested specs first.

        Args:
            spec: ``{"type": name, ...}``; the other items are the factory's keyword arguments.
            location: where the spec was written, for the note that a failing constructor gets.
            context: what a config cannot hold, such as an optimizer's parameters, or need not; a factory, here or
                nested, gets those that it has a parameter for and that the spec does not give, and so does what adapts
                it.
        """
        factory = self.get(spec["type"])
        known = options_of(factory)
        arguments: dict[str, Any] = {}
        for key, value in spec.items():
            if key != "type":
                annotation = known[key].annotation if key in known else Any
                if isinstance(value, (list, tuple, Mapping)):
                    value = _build_nested(kind_of(annotation, self, key), value, context)
                arguments[key] = fit(value, annotation)
        try:
            made = self._adapt(factory, context)(**{key: context[key] for key in context if key in known} | arguments)
        except (Exception, SystemExit) as error:
            failure = _failure(error)
            if not isinstance(failure, VisregError):
                place = f" at {location}" if location else ""
                failure.add_note(f"while building {spec['type']!r} from {self.kind}{place} with {_short(arguments)}")
            raise failure  # noqa: B904  it is the same one, or tells of its cause
        return made  # type: ignore[no-any-return]

    def _adapt(self, factory: Callable[..., Any], context: Mapping[str, object]) -> Callable[..., Any]:
        if not self._adapter:
            return factory
        module, _, attribute = self._adapter.partition(":")
        adapter = getattr(importlib.import_module(module), attribute)
        known = options_of(adapter)
        adapted: Callable[..., Any] = adapter(factory, **{key: context[key] for key in context if key in known})
        return adapted


def _failure(error: Exception | SystemExit) -> Exception:
    """Return an exception, in place of one that would end the program without a word."""
    if isinstance(error, Exception):
        return error
    failure = RuntimeError(f"it calls sys.exit({error.code!r})").with_traceback(error.__traceback__)
    failure.__cause__ = error
    return failure


def _build_nested(registry: Registry[Any], value: Any, context: Mapping[str, object]) -> Any:
    if is_spec(value):
        return registry.build(value, None, **context)
    if isinstance(value, Mapping):
        return {key: _build_nested(registry, item, context) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_build_nested(registry, item, context) for item in value)
    return value


def kind_of(annotation: Any, parent: Registry[Any], option: str = "") -> Registry[Any]:
    """Return the registry of a spec nested in an option: what its name or annotation says, else its parent's."""
    if option == "loss":  # of a task in a task; a loss is a module like any other, and so is a model
        return LOSSES
    text = str(annotation)
    return next((registry for word, registry in KIND_OF_CLASS.items() if word in text), parent)


def _file_of(factory: Callable[..., Any]) -> str:
    try:
        return inspect.getsourcefile(factory) or factory.__module__
    except (TypeError, OSError):  # made at a prompt
        return factory.__module__


def _short(arguments: Mapping[str, Any], limit: int = 200) -> str:
    text = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    return text if len(text) <= limit else f"{text[:limit]}…"


MODELS: Registry[nn.Module] = Registry("models", adapter="visreg.models.adopted:adapt")
LOSSES: Registry[nn.Module] = Registry("losses")
TASKS: Registry[Task] = Registry("tasks")
DATASETS: Registry[Dataset] = Registry("datasets", adapter="visreg.datasets.adopted:adapt")
TRANSFORMS: Registry[Transform] = Registry("transforms", adapter="visreg.transforms.adapter:adapt")
SAMPLERS: Registry[Sampler] = Registry("samplers")
METRICS: Registry[Metric] = Registry("metrics")
OPTIMIZERS: Registry[Optimizer] = Registry("optimizers")
SCHEDULES: Registry[LRScheduler] = Registry("schedules")
HOOKS: Registry[Hook] = Registry("hooks")

KINDS: Mapping[str, Registry[Any]] = {
    registry.kind: registry
    for registry in (MODELS, LOSSES, TASKS, DATASETS, TRANSFORMS, SAMPLERS, METRICS, OPTIMIZERS, SCHEDULES, HOOKS)
}
KIND_OF_CLASS: Mapping[str, Registry[Any]] = {
    "Dataset": DATASETS, "Metric": METRICS, "Hook": HOOKS, "LRScheduler": SCHEDULES, "Optimizer": OPTIMIZERS,
    "Sampler": SAMPLERS,
}  # fmt: skip
