"""Counts what was injected and survived, for the summary at the end."""

from collections import Counter

import pytest
from lives import Lives

collect_ignore = ["signal_parts.py"]  # a plugin file: looking for doctests in it would register its components


@pytest.fixture(scope="session")
def lives():
    """Processes that train and can be killed; see `Lives.run`."""
    lives = Lives()
    yield lives
    lives.stop()


@pytest.fixture
def survived(record_property):
    """Assert that all faults of a kind were survived, and have the count printed in the summary."""

    def check(what: str, survived: int, injected: int) -> None:
        record_property("faults", (what, survived, injected))
        print(f"{what}: survived {survived} of {injected} injected")
        assert survived == injected > 0

    return check


def pytest_terminal_summary(terminalreporter):
    counts = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") == "call":
                for name, value in report.user_properties:
                    if name == "faults":
                        what, survived, injected = value
                        counts[what, "survived"] += survived
                        counts[what, "injected"] += injected
    if counts:
        terminalreporter.section("faults")
        for what in sorted({what for what, _ in counts}):
            survived, injected = counts[what, "survived"], counts[what, "injected"]
            terminalreporter.line(f"{what}: survived {survived} of {injected} injected")
