"""Settings that could make the training of a config faster, and what of its results they change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import evolve, frozen
from torch import nn

from visreg.build import FUSED
from visreg.config import Config
from visreg.machine import cores
from visreg.options import options_of
from visreg.registry import OPTIMIZERS
from visreg.runner import Runner
from visreg.schema import Schema

NOTHING, ROUNDING, PRECISION = "nothing", "the last bits", "the precision"
DRAWS = f"{ROUNDING}, and random draws of layers such as dropout"
DRAWING = ("Dropout", "StochasticDepth", "DropPath")  # in the names of modules that draw
FOR_MEMORY = "run.gradient_checkpointing"
WRITERS = frozenset({"Checkpoint", "Console", "MetricsLog", "Profiler", "TensorBoard"})


@frozen
class Setting:
    """Options that a config can be given.

    Attributes:
        changes: their values, by the path in the config.
        effect: what of the results they change.
    """

    changes: Mapping[str, Any]
    effect: str

    @property
    def overrides(self) -> list[str]:
        """What to give to ``--set``."""
        return [f"{path}={value!r}" for path, value in self.changes.items()]

    @property
    def lines(self) -> list[str]:
        """What to put into the config."""
        sections: dict[str, list[str]] = {}
        for path, value in self.changes.items():
            section, _, name = path.partition(".")
            sections.setdefault(section, []).append(f"{name}={value!r}")
        return [f"{section} = dict({', '.join(options)})" for section, options in sections.items()]

    def __str__(self) -> str:
        return " ".join(self.overrides) or "as it is"


AS_IS = Setting({}, NOTHING)


def candidates(schema: Schema, runner: Runner) -> Iterator[Setting]:
    """Yield the settings that could be faster than those of a config, each by itself; the last only saves memory."""
    run, gpu = schema.run, runner.device.type == "cuda"
    yield Setting({"run.channels_last": not run.channels_last}, ROUNDING)
    kind, known = schema.optimizer["type"], options_of(OPTIMIZERS.get(schema.optimizer["type"]))
    for name, other in (("fused", "foreach"), ("foreach", "fused")):
        is_so = bool(schema.optimizer.get(name, name == "fused" and gpu and kind in FUSED))
        if name in known:
            without = {f"optimizer.{other}": None} if schema.optimizer.get(other) else {}
            yield Setting({f"optimizer.{name}": not is_so, **without}, ROUNDING)
    for mode in [False] if run.compile else [True, "reduce-overhead"] if gpu else [True]:
        yield Setting({"run.compile": mode}, DRAWS if _draws(runner.task) else ROUNDING)
    if run.precision == "fp32":
        yield Setting({"run.precision": "bf16"}, PRECISION)
    if runner.train_loader is not None and runner.train_loader.waits:
        most = cores()
        for workers in sorted({0, most // 2, most} - {getattr(runner.train_loader, "workers", 0)}):
            yield Setting({"train.workers": workers}, NOTHING)
    if not run.gradient_checkpointing:
        yield Setting({FOR_MEMORY: True}, NOTHING)


def _draws(module: nn.Module) -> bool:
    """Return whether a layer draws at random: what is compiled draws other numbers."""
    drawing = (each for each in module.modules() if any(name in type(each).__name__ for name in DRAWING))
    return any(getattr(each, "p", 1) for each in drawing) or any(
        each.dropout for each in module.modules() if isinstance(each, nn.MultiheadAttention)
    )


def together(settings: Sequence[Setting]) -> Setting:
    """Return several settings as one; of none, the config as it is."""
    changes = {path: value for setting in settings for path, value in setting.changes.items()}
    effects = {setting.effect for setting in settings}
    return Setting(changes, next((effect for effect in (PRECISION, DRAWS, ROUNDING) if effect in effects), NOTHING))


def silent(config: Config) -> Config:
    """Return a config without what only writes, and with what changes a step."""
    values = {**config.values, "default_hooks": []}
    values["hooks"] = [hook for hook in values.get("hooks", ()) if hook["type"] not in WRITERS]
    values["run"] = {key: value for key, value in values["run"].items() if key not in ("on_nan", "max_rollbacks")}
    return evolve(config, values=values)
