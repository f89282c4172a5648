"""Where the real data is, if it is there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def real_data(monkeypatch):
    beside = Path(__file__).parents[3] / "shared" / "data"
    root = Path(os.environ.get("VISREG_DATA") or beside).absolute()
    if not (root / "MNIST" / "raw").is_dir():
        pytest.skip("the real MNIST is not here; set VISREG_DATA to the folder it is in")
    monkeypatch.setenv("VISREG_DATA", str(root))
    return root


@pytest.fixture
def no_network(monkeypatch):
    """Make every host unreachable."""

    def refuse(*arguments, **options):
        raise OSError("no network in this test")

    monkeypatch.setattr("socket.create_connection", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
