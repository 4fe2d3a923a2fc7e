"""What the phases work with: the data on the device, and networks built from the state."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from cstar_core.architectures import build, load, stem_name
from cstar_core.evaluation.batches import unit_interval
from cstar_core.evaluation.examples import Examples
from cstar_core.evaluation.settings import EvaluationSettings
from cstar_core.files.datasets import DatasetArrays, hold_out
from cstar_core.layers import Layer, describe
from cstar_core.normalization import NormalizedModel
from cstar_core.pipeline.budgets import budgets_within
from cstar_core.pipeline.methods import METHODS, Method
from cstar_core.pipeline.plans import Plan
from cstar_core.pipeline.profiles import Profile, for_ratio
from cstar_core.pipeline.state import State
from cstar_core.pipeline.task import Task
from cstar_core.ranks import Budget, Inventory
from cstar_core.training.config import TrainingConfig
from cstar_core.training.loop import AdversarialTrainer
from cstar_core.training.progress import Constraint
from cstar_core.training.randomness import derive_seed, generator
from cstar_core.training.selection import HeldOutSelection

CALIBRATION_BATCHES = 8
CALIBRATION_BATCH = 128


class Workbench:
    """Data, device and folder of one task; builds its networks, trainers and budgets."""

    def __init__(
        self,
        task: Task,
        weights: dict[str, Tensor],
        data: DatasetArrays,
        *,
        folder: Path,
        device: torch.device,
    ) -> None:
        self.task = task
        self.uploaded = weights
        self.data = data
        self.folder = folder
        self.device = device

    @property
    def method(self) -> Method:
        """The way the task is to be done."""
        return METHODS[self.task.method]

    @property
    def profile(self) -> Profile:
        """The task's profile for the ratio it asks for, spent as its method spends it."""
        limits = [budget.limit for budget in self.budgets if budget.unit == "parameters"]
        ratio = self.inventory.dense("parameters") / min(limits) if limits else None
        return self.method.spend(for_ratio(self.task.profile, ratio))

    @cached_property
    def test(self) -> Examples:
        """The test split."""
        return self._examples(self.data.test_images, self.data.test_labels)

    @cached_property
    def training(self) -> Examples:
        """The training split without the held-out part."""
        return self._training_split.take(self._split_index[0])

    @cached_property
    def held_out(self) -> Examples:
        """The part of the training split on which ranks and epochs are chosen."""
        return self._training_split.take(self._split_index[1])

    @property
    def evaluation(self) -> EvaluationSettings:
        """How the networks are evaluated, before and after."""
        task = self.task
        return EvaluationSettings(
            threat=task.threat,
            seed=task.seed,
            examples=min(task.examples, len(self.test)),
            autoattack_examples=task.autoattack_examples,
            probe_examples=task.probe_examples,
        )

    @cached_property
    def attacked(self) -> Examples:
        """The test examples that are attacked, the same before and after."""
        return self.test.take(self.evaluation.attacked_index(len(self.test)).to(self.device))

    @cached_property
    def layers(self) -> list[Layer]:
        """The layers of the dense network."""
        network = build(self.task.architecture)
        stem = stem_name(self.task.architecture)
        return describe(network, self.task.input_shape, stem=stem)

    @cached_property
    def inventory(self) -> Inventory:
        """What the dense network costs."""
        return Inventory.of(build(self.task.architecture), self.layers)

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """The task's limits as budgets for the whole network."""
        return budgets_within(self.task.limits, self.inventory)

    def check_limits(self) -> None:
        """Raise TargetInfeasible or TargetUnsupported for limits that the method cannot meet."""
        network = build(self.task.architecture)
        self.method.plan_kind.check(network, self.layers, self.budgets)

    def dense_model(self, weights: dict[str, Tensor]) -> NormalizedModel:
        """Return the dense network with `weights`, normalisation inside."""
        return self.normalised(load(self.task.architecture, weights))

    def plan(self, state: State) -> Plan:
        """Return the plan of `state`."""
        return self.method.plan_kind.read(state.plan)

    def compressed_model(self, state: State) -> NormalizedModel:
        """Return the compressed network of `state`."""
        dense = load(self.task.architecture, state.dense)
        network = self.method.plan_kind.build(dense, state.plan)
        if state.factorised:
            network.load_state_dict(state.factorised)
        return self.normalised(network)

    def teacher(self, state: State, config: TrainingConfig) -> NormalizedModel | None:
        """Return the robust dense network where `config` distils from it."""
        return None if config.distillation is None else self.dense_model(state.teacher)

    def normalised(self, network: nn.Module) -> NormalizedModel:
        """Wrap a network so that it takes images in [0, 1], on the device, in eval mode."""
        model = NormalizedModel(network, self.task.mean, self.task.std)
        return model.to(self.device).eval()

    def trainer(
        self,
        model: nn.Module,
        config: TrainingConfig,
        *,
        phase: str,
        teacher: nn.Module | None = None,
        constraint: Constraint | None = None,
    ) -> AdversarialTrainer:
        """Return a trainer on the training split that keeps the best epoch on the held-out one.

        Under a constraint the epochs differ in how far it is met, so none is preferred.
        """
        return AdversarialTrainer(
            model,
            self.training.images,
            self.training.labels,
            threat=self.task.threat,
            config=config,
            seed=self.task.seed,
            phase=phase,
            teacher=teacher,
            constraint=constraint,
            selection=self.selection() if constraint is None else None,
        )

    def selection(self) -> HeldOutSelection:
        """Return the score by which anything is chosen: short PGD on held-out training images."""
        return HeldOutSelection(
            self.held_out.images,
            self.held_out.labels,
            self.task.threat,
            seed=derive_seed(self.task.seed, "selection"),
            settings=self.task.profile.selection,
        )

    def calibration_batches(self) -> list[Tensor]:
        """Return training images in [0, 1] for re-estimating batch-norm statistics."""
        source = generator(self.task.seed, "calibration")
        order = torch.randperm(len(self.training), generator=source)  # data may come class by class
        images = self.training.images[order[: CALIBRATION_BATCHES * CALIBRATION_BATCH]]
        batches = [unit_interval(batch) for batch in torch.split(images, CALIBRATION_BATCH)]
        return [batch for batch in batches if len(batch) > 1] or batches

    @cached_property
    def _training_split(self) -> Examples:
        return self._examples(self.data.train_images, self.data.train_labels)

    @cached_property
    def _split_index(self) -> tuple[Tensor, Tensor]:
        wanted = min(self.task.profile.held_out, len(self.data.train_labels) // 5)
        kept, held_out = hold_out(self.data.train_labels, count=wanted, seed=self.task.seed)
        return torch.as_tensor(kept), torch.as_tensor(held_out)

    def _examples(self, images: object, labels: object) -> Examples:
        pixels = torch.as_tensor(images).permute(0, 3, 1, 2).contiguous()
        return Examples(pixels.to(self.device), torch.as_tensor(labels).long().to(self.device))
