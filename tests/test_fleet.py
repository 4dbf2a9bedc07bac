"""A fleet of processes on real Redis: revocations reach every process while the server stops, and loses its data."""

from __future__ import annotations

from pathlib import Path

import pytest
from fleet import Plan, simulate


@pytest.mark.full
@pytest.mark.requirement("RV-1", "RV-2", "FS-4")
def test_a_fleet_refuses_revoked_subjects_only_while_redis_stops_and_returns(tmp_path: Path) -> None:
    plan = Plan(processes=4, subjects=2000, revoked=60, seconds=9.0, every=0.01)
    found = simulate(plan, tmp_path)
    assert found.unrefused == 0
    assert found.accepted_after <= plan.bound
    assert set(found.good) == {200}
    assert found.requests > 1000
    assert found.late == plan.revoked  # a process that starts after the loss knows them all
