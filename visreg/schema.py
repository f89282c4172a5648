"""What a config is made of: its sections, and their options."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from attrs import NOTHING, Attribute, field, fields, frozen, validators
from attrs.validators import deep_mapping, ge, instance_of, lt, min_len, optional

from visreg.config import ConfigPath
from visreg.specs import Spec

LONGEST = 10**12  # steps or epochs
DEFAULT_HOOKS: Sequence[Spec] = ({"type": "Console"}, {"type": "MetricsLog"}, {"type": "Checkpoint"})


def _fraction(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if value is not None and not 0 < value <= 1:
        raise ValueError("must be above 0 and at most 1")


def _workers(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if isinstance(value, int):
        ge(0)(instance, attribute, value)


def _some(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if isinstance(value, (list, tuple)) and not value:
        raise ValueError("names no module; give patterns, True or False")


def _device(instance: object, attribute: Attribute[str], value: str) -> None:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", value):
        raise ValueError("must be 'auto', 'cpu', 'cuda' or, for one GPU of several, 'cuda:0' and so on")


@frozen(kw_only=True)
class DataConfig:
    """Where the batches of one split come from.

    Attributes:
        dataset: gives the samples.
        transforms: what each sample passes through, in order, drawn from (seed, epoch, index).
        batch_transforms: what each batch passes through, on the device.
        batch_size: samples in a batch, over all processes; in training, those of one optimizer step.
        workers: processes that make samples; 0 makes them in this one. ``"auto"`` leaves one core to the training and
            gives each of the others a worker. Unused where the data is in memory.
        timeout: seconds that a worker may take over one sample before another replaces it; 0 for any time.
        on_bad_sample: what to do with a sample that cannot be read, or is too small for a crop: ``"error"`` stops;
            ``"skip"`` takes another one in its place, always the same one; an evaluation leaves it out.
        max_bad_samples: how many different samples may be skipped; one more is an error.
        in_memory: hold the dataset in memory, on the device if it fits there, and compute ``transforms`` for whole
            batches: the batches are the same, sooner. By itself where it takes up to a quarter of the free memory.
        draft: decode a JPEG at 1/2, 1/4 or 1/8 of its size where the first transform, a Resize or a RandomResizedCrop,
            shrinks it at least as much: sooner, and the pixels differ a little.
        cache: keep decoded samples, after those of the first ``transforms`` that are not random, such as a Resize: in
            ``"ram"`` as long as the run; or on the ``"disk"`` for the next one too, in ``$VISREG_CACHE``, else
            ``~/.cache/visreg``. From the second epoch on, they are there sooner. A RandomResizedCrop that comes first
            then cuts its parts out of whole images, which ``draft`` makes no difference to.
        drop_last: leave out a last batch that is not full.
        shuffle: another order every epoch; by default in training only.
        samples_per_epoch: samples that make an epoch, of a dataset that is a stream and has no length.
        sampler: which samples a training epoch sees, how often and in what order; each once by default.
    """

    dataset: Spec
    transforms: Sequence[Spec] = ()
    batch_transforms: Sequence[Spec] = ()
    batch_size: int = field(validator=ge(1))
    workers: int | Literal["auto"] = field(default="auto", validator=_workers)
    timeout: float = field(default=120.0, validator=ge(0))
    on_bad_sample: Literal["error", "skip"] = "error"
    max_bad_samples: int = field(default=100, validator=ge(0))
    in_memory: Literal["auto"] | bool = "auto"
    draft: bool = True
    cache: Literal["ram", "disk"] | None = None
    drop_last: bool = False
    shuffle: bool | None = None
    samples_per_epoch: int | None = field(default=None, validator=optional(ge(1)))
    sampler: Spec | None = None


@frozen(kw_only=True)
class RunConfig:
    """How to run; with the same seed, only epochs, steps and precision change what is learnt.

    Attributes:
        epochs: times to go through the training data; or give steps.
        steps: optimizer steps to take; or give epochs.
        eval_every: how many epochs, or steps where steps are given, lie between two evaluations.
        seed: of the initial weights, the order and the augmentation.
        device: ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        precision: of matrix products; weights stay float32.
        accumulate: how many parts to cut each batch into, to save memory; the step is the same, but for dropout and
            batch norm, which see each part by itself.
        gradient_checkpointing: compute activations again in the backward pass instead of keeping them, to save memory;
            the step is the same. True for the model's blocks, or patterns of its modules' names.
        compile: compile the training step with ``torch.compile``; True, or the mode, of which ``"reduce-overhead"``
            records CUDA graphs and ``"max-autotune"`` tries several kernels. The numbers are the same but for the last
            bits, and random draws of layers such as dropout.
        channels_last: keep convolutions' weights, and so what they compute, in the order NHWC: the numbers are the same
            but for the last bits, and most networks of convolutions faster.
        deterministic: use deterministic algorithms only, where a GPU has others that are faster.
        on_nan: at a loss or gradient that is not finite, ``"stop"``; or ``"rollback"`` to the latest checkpoint and go
            on without that batch. ``"ignore"`` spares the look at them, and trains on whatever comes.
        max_rollbacks: how often to do so before the run stops after all.
        work_dir: the run's folder; ``work/<name of the config>`` by default.
    """

    epochs: int | None = field(default=None, validator=optional([ge(1), lt(LONGEST)]))
    steps: int | None = field(default=None, validator=optional([ge(1), lt(LONGEST)]))
    eval_every: int | None = field(default=None, validator=optional(ge(1)))
    seed: int = field(default=0, validator=[ge(0), lt(2**63)])
    device: str = field(default="auto", validator=_device)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    accumulate: int = field(default=1, validator=ge(1))
    gradient_checkpointing: bool | Sequence[str] = field(default=False, validator=_some)
    compile: bool | Literal["default", "reduce-overhead", "max-autotune"] = False
    channels_last: bool = False
    deterministic: bool = False
    on_nan: Literal["stop", "rollback", "ignore"] = "stop"
    max_rollbacks: int = field(default=3, validator=ge(1))
    work_dir: str | None = field(default=None, validator=optional(min_len(1)))


@frozen(kw_only=True)
class ParamGroups:
    """Options that some parameters have of their own.

    Attributes:
        no_decay: parameters without weight decay: ``"norm"``, ``"bias"``, or patterns such as ``"*.pos_embed"``.
        lr_scale: what to multiply the learning rate by, by pattern or prefix: ``{"features": 0.1}``.
        layer_decay: multiply the rate by this once more for each layer further from the output.
    """

    no_decay: Sequence[str] = ()
    lr_scale: Mapping[str, float] = field(factory=dict, validator=deep_mapping(value_validator=ge(0)))
    layer_decay: float | None = field(default=None, validator=_fraction)


@frozen(kw_only=True)
class Schema:
    """A whole config.

    Attributes:
        task: what is learnt. model: the network. loss: how wrong it is, unless the model itself knows.
        metrics: how good it is. optimizer, param_groups, schedule: how it learns.
        hooks: what else happens, in order. default_hooks: come last, save those of a type that ``hooks`` has.
        train, val, test: the data. run: how to run.
        plugins: files to run first, relative to the config, that register components.
    """

    task: Spec
    model: Spec
    loss: Spec | None = None
    metrics: Sequence[Spec] = ()
    optimizer: Spec
    param_groups: ParamGroups = field(factory=ParamGroups)
    schedule: Spec | Sequence[Spec] = ()
    hooks: Sequence[Spec] = ()
    default_hooks: Sequence[Spec] = DEFAULT_HOOKS
    train: DataConfig
    val: DataConfig | None = None
    test: DataConfig | None = None
    run: RunConfig
    plugins: Sequence[str] = field(default=(), validator=instance_of((list, tuple)))

    @classmethod
    def of(cls, values: Mapping[str, Any], without: Collection[ConfigPath] = ()) -> Schema:
        """Return checked ``values`` with every default filled in.

        Args:
            values: the config.
            without: places where it is wrong; what is required there, or missing, is None.
        """
        with validators.disabled():  # None, for what is wrong or missing, passes none
            return cls._of(values, without)

    @classmethod
    def _of(cls, values: Mapping[str, Any], without: Collection[ConfigPath]) -> Schema:
        right: dict[str, Any] = {name: value for name, value in values.items() if (name,) not in without}
        for name, kind in SECTIONS.items():
            if right.get(name) is not None:
                kept = {key: value for key, value in right[name].items() if (name, key) not in without}
                right[name] = kind(**{**_required(kind), **kept})
        return cls(**{**_required(cls), **right})

    @property
    def all_hooks(self) -> list[tuple[ConfigPath, Spec]]:
        """The hooks, and the default ones of types that are not among them, each with its place."""
        listed = {hook["type"] for hook in self.hooks}
        places = [(("hooks", index), hook) for index, hook in enumerate(self.hooks)]
        defaults = [(("default_hooks", index), hook) for index, hook in enumerate(self.default_hooks)]
        return [*places, *(place for place in defaults if place[1]["type"] not in listed)]

    @property
    def schedules(self) -> list[Spec]:
        """The schedules, of which there may be none, one or several."""
        return [self.schedule] if isinstance(self.schedule, Mapping) else list(self.schedule)

    def work_dir(self, file: Path | None) -> Path:
        """Return the run's folder."""
        return run_folder(self.run.work_dir, file)


def run_folder(work_dir: str | None, file: Path | None) -> Path:
    """Return a run's folder, given ``run.work_dir`` and the config's file."""
    return Path(work_dir or f"work/{file.stem if file else 'run'}")


def _required(kind: type[Any]) -> dict[str, None]:
    return {field.name: None for field in fields(kind) if field.default is NOTHING}


SECTIONS: Mapping[str, type[Any]] = {
    "param_groups": ParamGroups, "train": DataConfig, "val": DataConfig, "test": DataConfig, "run": RunConfig,
}  # fmt: skip
