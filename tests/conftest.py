"""What tests need that cannot be had from a registry: marked, skipped where it is not there, and counted."""

from collections.abc import Iterator
from typing import Any

import pytest

from server.pipelines.codec._lina.imports import present

WITHOUT = "the package linacodec is not installed: pip install -e '.[linacodec]'"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "linacodec: needs the package linacodec")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if present():
        return
    for item in items:
        if item.get_closest_marker("linacodec"):
            item.add_marker(pytest.mark.skip(reason=WITHOUT))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if skipped := sum(WITHOUT in reason for reason in _reasons(terminalreporter)):
        terminalreporter.write_line(f"{skipped} tests were skipped because {WITHOUT}")


def _reasons(terminalreporter: Any) -> Iterator[str]:
    for report in terminalreporter.stats.get("skipped", []):
        yield str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
