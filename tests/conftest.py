"""What holds for every test."""

from __future__ import annotations

import os
import uuid
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from needs import HOW, needs

# How long an example takes says how busy the machine is, not whether danlu is right.
settings.register_profile("danlu", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("danlu")


@pytest.fixture
def postgres() -> Iterator[str]:
    """The URL of an empty place in a PostgreSQL server."""
    import sqlalchemy as sa  # here: most tests do without

    url = os.environ.get("DANLU_TEST_POSTGRES") or needs("PostgreSQL")
    place = f"test_{uuid.uuid4().hex}"
    engine = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"))
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE SCHEMA {place}")
    mine = sa.make_url(url).update_query_dict({"options": f"-csearch_path={place}"})
    yield mine.render_as_string(hide_password=False)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DROP SCHEMA {place} CASCADE")
    engine.dispose()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which tests were left out for want of a program, and how to get it."""
    left_out = Counter(
        what
        for report in terminalreporter.stats.get("skipped", [])
        for what in HOW
        if isinstance(report.longrepr, tuple) and report.longrepr[2].endswith(f"needs {what}")
    )
    if left_out:
        terminalreporter.section("left out on this machine")
    for what, n in left_out.items():
        terminalreporter.line(f"{n} tests that need {what}. To get it: {HOW[what]}")
