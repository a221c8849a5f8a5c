"""One browser for all tests of the page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.evidence.page.browser import Tab, chromium


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture
def tab(browser: Any) -> Iterator[Tab]:
    """Open a tab in which nothing may go wrong."""
    opened = Tab(browser)
    yield opened
    assert opened.troubles == []
    opened.page.close()


@pytest.fixture(scope="module")
def kept(browser: Any) -> Iterator[Tab]:
    """Open a tab for all tests of a file, in which nothing may go wrong."""
    opened = Tab(browser)
    yield opened
    assert opened.troubles == []
    opened.page.close()
