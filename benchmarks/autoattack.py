"""P17: AutoAttack standard, beside the library it stands on and beside torchattacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.harness import Settings, Timing, interleave
from benchmarks.peers import library_autoattack, torchattacks_autoattack
from benchmarks.rows import Bar, Row, speed_up
from benchmarks.trained import Trained, robust_networks
from cstar_core.evaluation.attacks.autoattack import autoattack_correct

IMAGES, ROUNDS = 16, 2  # a round of all three takes minutes
FEWER_STEPS = "torchattacks takes 10 steps of APGD and FAB by default, where the standard has 100"
OURS, LIBRARY, TORCHATTACKS = "ours", "pyautoattack", "torchattacks.AutoAttack"


def p17(settings: Settings) -> Iterator[Row]:
    """Time and verdicts on the same images, all by one seed; each peer has both rows."""
    subject = next(robust_networks(settings))
    images, labels = subject.images[:IMAGES], subject.labels[:IMAGES]
    what = f"AutoAttack standard of {IMAGES} images, {subject.name}"
    robust: dict[str, Tensor] = {}
    runs = {
        OURS: partial(_ours, subject, images, labels, settings.seed),
        LIBRARY: partial(_judged, subject, images, labels, library_autoattack, settings.seed),
        TORCHATTACKS: partial(
            _judged, subject, images, labels, torchattacks_autoattack, settings.seed
        ),
    }
    kept = {name: partial(_keep, robust, name, run) for name, run in runs.items()}
    timings = interleave(kept, seconds=0, warmup=0, fewest=ROUNDS)
    for peer in (LIBRARY, TORCHATTACKS):
        yield _faster(what, timings, peer)
        yield _weaker(what, robust, peer)


def _faster(what: str, timings: dict[str, Timing], peer: str) -> Row:
    bar, note = (Bar(1.2, 2), "") if peer == LIBRARY else (None, FEWER_STEPS)
    return speed_up("P17", what, timings, ours=OURS, peer=peer, bar=bar, note=note)


def _weaker(what: str, robust: dict[str, Tensor], peer: str) -> Row:
    ours, theirs = (100 * float(robust[name].float().mean()) for name in (OURS, peer))
    differing = int((robust[OURS] != robust[peer]).sum())
    return Row(
        "P17",
        f"accuracy under {what}",
        f"ours {ours:.1f} %",
        f"{peer} {theirs:.1f} %",
        ours - theirs,
        unit="points",
        bar=Bar(0.5, 0, smaller_is_better=True),
        note=f"{differing} verdicts differ",
    )


def _keep(robust: dict[str, Tensor], name: str, run: Callable[[], Tensor]) -> None:
    robust[name] = run()


def _ours(subject: Trained, images: Tensor, labels: Tensor, seed: int) -> Tensor:
    found = autoattack_correct(subject.model, images, labels, subject.threat, seed=seed)
    return found.robust


Attack = Callable[[nn.Module, Tensor, Tensor, float, int], Tensor]


def _judged(subject: Trained, images: Tensor, labels: Tensor, attack: Attack, seed: int) -> Tensor:
    """Which images the network still gets right as a peer has left them."""
    with torch.random.fork_rng(devices=[]):
        perturbed = attack(subject.model, images, labels, subject.threat.epsilon, seed)
    with torch.no_grad():
        right: Tensor = subject.model(perturbed).argmax(1) == labels
    return right
