"""What a client may name is what the method knows under that name."""

from __future__ import annotations

from dataclasses import fields
from typing import get_args

from cstar_core.pipeline.methods import METHODS
from cstar_core.pipeline.profiles import PROFILES
from cstar_core.pipeline.task import Limits
from cstar_core.ranks import LayerPlan, RankPlan
from store import contracts, results


def test_every_method_can_be_asked_for() -> None:
    assert set(get_args(contracts.Method)) == set(METHODS)


def test_every_profile_can_be_asked_for() -> None:
    assert set(get_args(contracts.ProfileName)) == set(PROFILES)


def test_every_limit_can_be_asked_for() -> None:
    assert set(contracts.CompressionTarget.model_fields) == {field.name for field in fields(Limits)}


def test_what_is_shown_of_a_plan_is_what_a_plan_has() -> None:
    derived = {"ratio", "latency_ms"}
    shown = set(results.PlannedNetwork.model_fields)
    assert shown - derived <= {field.name for field in fields(RankPlan)}
    assert set(results.PlannedLayer.model_fields) == {field.name for field in fields(LayerPlan)}
