from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn

from cstar_core.architectures import Architecture, names, registry
from cstar_core.folding import FoldedCopy, attack_target

from .networks import convolutional, images


class Residual(nn.Module):
    """Batch norms that follow a bias-free convolution, a sum, and a convolution used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.shared, self.shared_norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.sum_norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first_norm(self.first(x)).relu()
        y = self.sum_norm(y + self.shared_norm(self.shared(y)))
        return self.shared(y).mean((2, 3))  # type: ignore[no-any-return]


class DataDependent(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) if x.sum() > 0 else -x.flatten(1)


def trained(model: nn.Module) -> nn.Module:
    """With batch-norm scales and statistics far from their defaults."""
    source = torch.Generator().manual_seed(7)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean):
                assert tensor is not None
                tensor.copy_(torch.randn(tensor.shape, generator=source))
            assert module.running_var is not None
            module.running_var.uniform_(0.2, 3, generator=source)
    return model.eval()


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def test_a_folded_copy_computes_the_same_function_without_batch_norm() -> None:
    model, x = trained(convolutional()), images(5)
    copy = FoldedCopy(model)
    assert norms(copy) == 0
    assert torch.allclose(copy(x), model(x), atol=1e-5)


def test_only_a_batch_norm_whose_convolution_serves_nothing_else_is_folded() -> None:
    model, x = trained(Residual()), images(5)
    copy = FoldedCopy(model)
    assert norms(copy) == 2
    assert torch.allclose(copy(x), model(x), atol=1e-5)


def test_a_refreshed_copy_follows_weights_and_statistics() -> None:
    model, x = trained(convolutional()), images(5)
    copy = FoldedCopy(model)
    model.train()(images(8, seed=3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    copy.refresh()
    assert torch.allclose(copy(x), model.eval()(x), atol=1e-4)


class Constants(nn.Module):
    """A tied weight, a buffer outside the state dictionary and a constant of the graph."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, 16), nn.Linear(16, 16)
        self.second.weight = self.first.weight
        self.register_buffer("mean", torch.full((16,), 0.3), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.first(x.flatten(1) - self.mean))
        return y * torch.tensor(2.0)


def test_tied_weights_buffers_and_constants_are_followed_too() -> None:
    model, x = Constants(), images(5)
    copy = FoldedCopy(model)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.mul_(1.5)
    copy.refresh()
    assert torch.allclose(copy(x), model(x), atol=1e-5)


def test_a_copy_shares_nothing_with_its_source() -> None:
    model = trained(convolutional())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    copy = FoldedCopy(model)
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.zero_()
    assert not any(parameter.requires_grad for parameter in copy.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_network_whose_path_depends_on_its_input_is_attacked_itself() -> None:
    model = DataDependent()
    assert attack_target(model) is model


def test_a_folded_copy_can_be_traced_again() -> None:
    copy = FoldedCopy(trained(convolutional()))
    assert isinstance(fx.symbolic_trace(copy), fx.GraphModule)


SMALL: dict[str, int | bool | str] = {"width": 4, "hidden": 8, "blocks": 2, "widen": 2}
# What no convolution feeds, or one that feeds something else too: the sums of pre-activation
# networks, and their last norm. Everywhere else all norms are folded away.
LEFT = {"preact_resnet18_cifar": 9, "wideresnet_cifar": 6}


@pytest.mark.parametrize("name", names())
def test_a_folded_architecture_computes_the_same_function(name: str) -> None:
    entry = registry.find(name)
    arguments = {key: value for key, value in SMALL.items() if key in entry.arguments}
    model = trained(registry.build(Architecture(name, arguments), seed=1))
    channels, side, _ = entry.input_shape
    x = images(2, shape=(channels, min(side, 32), min(side, 32)))
    copy = FoldedCopy(model)
    assert norms(copy) == LEFT.get(name, 0)
    with torch.no_grad():
        logits = model(x)
        assert float((copy(x) - logits).abs().max()) <= 1e-5 * float(logits.abs().max())
