"""The table of allowed transitions, by itself."""

from __future__ import annotations

import pytest

from store.states import ALLOWED, FINAL, LEASED, JobState, sources


def test_every_state_says_where_it_may_go() -> None:
    assert set(ALLOWED) == set(JobState)


def test_the_final_states_are_those_that_lead_nowhere() -> None:
    assert {state for state, targets in ALLOWED.items() if not targets} == FINAL


@pytest.mark.parametrize("target", JobState)
def test_the_sources_of_a_state_are_those_that_may_go_there(target: JobState) -> None:
    assert sources(target) == {state for state in JobState if target in ALLOWED[state]}


def test_every_state_can_be_reached_from_queued() -> None:
    reached = {JobState.QUEUED}
    while new := {target for state in reached for target in ALLOWED[state]} - reached:
        reached |= new
    assert reached == set(JobState)


def test_a_final_state_can_be_reached_from_every_other() -> None:
    assert all(
        ALLOWED[state] & (FINAL | LEASED | {JobState.QUEUED}) for state in set(ALLOWED) - FINAL
    )


def test_no_state_leads_to_itself() -> None:
    assert all(state not in targets for state, targets in ALLOWED.items())


def test_only_a_queued_job_is_claimed() -> None:
    assert sources(JobState.RUNNING) == {JobState.QUEUED}
