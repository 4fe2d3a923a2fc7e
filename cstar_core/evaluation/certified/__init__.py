"""Certified accuracy: examples whose every perturbation in the threat model is proven harmless.

`intervals` what is known of a value, `operators` what an operation does to it, `chains` linear
operators merged into one, `program` a traced network as a list of operations, `verdicts` the
proofs and their count. Nothing here trains or attacks.

Method: interval bound propagation (Gowal et al. 2018, "On the Effectiveness of Interval Bound
Propagation for Training Verifiably Robust Models"), in float64.
"""

from cstar_core.evaluation.certified.translation import Unbounded
from cstar_core.evaluation.certified.verdicts import (
    Certification,
    Invariant,
    certification,
    certified_correct,
    invariant,
    logit_bounds,
)

__all__ = [
    "Certification",
    "Invariant",
    "Unbounded",
    "certification",
    "certified_correct",
    "invariant",
    "logit_bounds",
]
