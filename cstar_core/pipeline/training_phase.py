"""Running a trainer inside a phase: progress, metrics, saving and stopping."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cstar_core.pipeline.observer import Interrupted, Observer
from cstar_core.pipeline.state import State
from cstar_core.pipeline.workbench import Workbench
from cstar_core.training.loop import AdversarialTrainer
from cstar_core.training.progress import EpochEnd

ExtraMetrics = Callable[[], Mapping[str, float]]


def train(
    trainer: AdversarialTrainer,
    state: State,
    observer: Observer,
    *,
    phase: str,
    extra_metrics: ExtraMetrics = dict,
) -> dict[str, float]:
    """Train to the end, from where `state.training` stands; returns the last epoch's metrics.

    Raises Interrupted, with the state saved, when the observer asks for a stop.
    """
    if state.training:
        trainer.load_state_dict(state.training)
    last: dict[str, float] = dict(state.findings.get(f"{phase}_last", {}))
    for happening in trainer.run():
        if isinstance(happening, EpochEnd):
            last = {**happening.metrics, **extra_metrics()}
            state.findings[f"{phase}_last"] = last
            state.findings.setdefault(f"{phase}_epochs", []).append(happening.metrics)
            for name, value in last.items():
                observer.metric(phase, name, value, step=happening.epoch + 1)
        else:
            observer.progress(phase, happening.fraction)
        _keep_or_stop(trainer, state, observer, phase)
    state.training = {}
    state.findings[f"{phase}_execution"] = trainer.effective
    return last


def train_compressed(workbench: Workbench, state: State, observer: Observer, *, phase: str) -> None:
    """Train the compressed network of `state` by the profile's last recipe, keep its best epoch."""
    config = workbench.profile.finetune
    model = workbench.compressed_model(state)
    teacher = workbench.teacher(state, config)
    trainer = workbench.trainer(model, config, phase=phase, teacher=teacher)
    last = train(trainer, state, observer, phase=phase)
    trainer.load_best()
    state.factorised = dict(model.network.state_dict())
    state.findings[phase] = {"last_epoch": last, "best_epoch": int(last["best_epoch"])}


def _keep_or_stop(
    trainer: AdversarialTrainer, state: State, observer: Observer, phase: str
) -> None:
    """Save the state when that is due or a stop is requested; raises Interrupted for the latter."""
    stop = observer.stop_requested()
    if stop or observer.save_due():
        state.training = trainer.state_dict()
        observer.save(phase, state)
    if stop:
        raise Interrupted(phase)
