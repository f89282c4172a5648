"""Packages that look installed: a module and its metadata, in a folder that is put on the path."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from visreg import component, registry

# The source of a module that has a network of some name.
NET = (
    "from torch import nn\nclass {name}(nn.Linear):\n    def __init__(self, width=2): super().__init__(width, width)\n"
)


def models(**names: str) -> str:
    """Return the entry points of models: what each name stands for."""
    return "[visreg.models]\n" + "".join(f"{name} = {target}\n" for name, target in names.items())


def install(
    folder: Path, name: str, version: str = "1.0", entry_points: str | bytes = "", modules: dict[str, str] | None = None
) -> Path:
    """Write the package ``name`` into ``folder`` as pip would, and return the path of its entry_points.txt."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    points = info / "entry_points.txt"
    points.write_bytes(entry_points if isinstance(entry_points, bytes) else entry_points.encode())
    for module, source in (modules or {}).items():
        (folder / f"{module}.py").write_text(source)
    return points


@contextmanager
def on_path(folder: Path) -> Iterator[None]:
    """Have Python and visreg see what is in ``folder``; then forget what was registered meanwhile."""
    files = {kind: dict(table.files) for kind, table in registry.KINDS.items()}
    component._all_installed.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield
    for kind, table in registry.KINDS.items():
        table.files = files[kind]
    component._all_installed.cache_clear()
