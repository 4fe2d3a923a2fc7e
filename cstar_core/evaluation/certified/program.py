"""A network as the list of its operations, read off its trace, ready to be run on intervals."""

from __future__ import annotations

import operator
from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from cstar_core.evaluation.certified.chains import compose
from cstar_core.evaluation.certified.intervals import Interval
from cstar_core.evaluation.certified.operators import Linear, Operation, Rearrangement, Sum
from cstar_core.evaluation.certified.translation import (
    ADDITION,
    FUNCTIONS,
    MODULES,
    WITH_CONSTANT,
    Unbounded,
    double,
)
from cstar_core.layers import eval_mode


@dataclass(frozen=True)
class Step:
    """One operation on earlier values, by their names."""

    name: str
    inputs: tuple[str, ...]
    operation: Operation


@dataclass(frozen=True)
class Program:
    """Steps in order, from the value `source` to the value `output`."""

    source: str
    steps: tuple[Step, ...]
    output: str

    def bound(self, images: Interval) -> Interval:
        """Bounds of the output for all images within `images`; values are dropped once used."""
        last_use = {name: step.name for step in self.steps for name in step.inputs}
        values = {self.source: images}
        for step in self.steps:
            result = step.operation.bound(*(values[name] for name in step.inputs))
            for name in step.inputs:
                if last_use[name] == step.name:
                    values.pop(name, None)
            values[step.name] = result
        return values[self.output]

    def split(self) -> tuple[Program, Linear | None]:
        """What comes before the linear operator at the end, and that operator, or None."""
        last = self.steps[-1] if self.steps else None
        if last is None or last.name != self.output or not isinstance(last.operation, Linear):
            return self, None
        return Program(self.source, self.steps[:-1], last.inputs[0]), last.operation


def read_program(model: nn.Module, *, merge: bool = True) -> Program:
    """The operations of `model` in eval mode, weights in float64 on the CPU.

    With `merge`, linear operators in a row become one. Raises `Unbounded` for a network that
    cannot be traced, or that has an operation without known bounds (see `translation`).
    """
    try:
        with eval_mode(model):
            traced = fx.symbolic_trace(model)
    except Exception as error:  # whatever the forward of an unknown network raises under tracing
        raise Unbounded(f"a network that cannot be traced ({error})") from error
    program = _Reader(traced).program()
    return _merged(program) if merge else program


def _merged(program: Program) -> Program:
    """The same function with every chain of linear operators made one."""
    uses = Counter(name for step in program.steps for name in step.inputs)
    merged: dict[str, Step] = {}
    for step in program.steps:
        before = merged.get(step.inputs[0])
        product = None
        if before is not None and uses[before.name] == 1 and before.name != program.output:
            product = compose(before.operation, step.operation)
        if before is None or product is None:
            merged[step.name] = step
        else:
            del merged[before.name]
            merged[step.name] = Step(step.name, before.inputs, product)
    return Program(program.source, tuple(merged.values()), program.output)


class _Reader:
    """Reads a traced network node by node."""

    def __init__(self, traced: fx.GraphModule) -> None:
        self._traced = traced
        self._operations: dict[str, Operation] = {}

    def program(self) -> Program:
        """All of it."""
        nodes = list(self._traced.graph.nodes)
        sources = [node.name for node in nodes if node.op == "placeholder"]
        (output,) = (node.args[0] for node in nodes if node.op == "output")
        if len(sources) != 1 or not isinstance(output, fx.Node):
            raise Unbounded("a network that does not take one tensor and return one")
        steps = [self._step(node) for node in nodes if node.op.startswith("call_")]
        return Program(sources[0], tuple(steps), output.name)

    def _step(self, node: fx.Node) -> Step:
        if node.op == "call_module":
            operation = self._module(node)
        elif node.target in WITH_CONSTANT:
            operation = self._arithmetic(node)
        else:
            operation = _function(node)
        self._operations[node.name] = operation
        values = [value for value in node.args if isinstance(value, fx.Node)]
        return Step(
            node.name, tuple(value.name for value in values if value.op != "get_attr"), operation
        )

    def _module(self, node: fx.Node) -> Operation:
        module = self._traced.get_submodule(str(node.target))
        read = MODULES.get(type(module))
        if read is None or len(node.args) != 1 or node.kwargs:
            raise Unbounded(f"{type(module).__name__} ({node.target})")
        if getattr(module, "inplace", False):
            self._refuse_other_uses(node)
        return read(module)

    def _refuse_other_uses(self, node: fx.Node) -> None:
        """What works in place must not change a value that another operation reads."""
        value = node.args[0]
        while isinstance(value, fx.Node):
            if len(value.users) > 1:
                raise Unbounded(f"{node.target}, in place on a value that is used twice")
            is_view = isinstance(self._operations.get(value.name), Rearrangement)
            value = value.args[0] if is_view else None

    def _arithmetic(self, node: fx.Node) -> Operation:
        """The sum of two values, or one value and a constant."""
        if len(node.args) == 2 and not node.kwargs and self._constant(node.args[0]) is None:
            constant = self._constant(node.args[1])
            if constant is not None:
                return WITH_CONSTANT[node.target](constant)
            if node.target in ADDITION:
                return Sum()
        raise Unbounded(_title(node))

    def _constant(self, value: object) -> Tensor | None:
        """A number, or a tensor of the network, in float64; None for anything else."""
        if isinstance(value, fx.Node) and value.op == "get_attr":
            value = operator.attrgetter(str(value.target))(self._traced)
        return double(torch.as_tensor(value)) if isinstance(value, Tensor | int | float) else None


def _function(node: fx.Node) -> Operation:
    read = FUNCTIONS.get(node.target)
    # Sizes and indices that depend on the image are nodes among the other arguments.
    if read is None or node.all_input_nodes != [node.args[0]]:
        raise Unbounded(_title(node))
    return read(node)


def _title(node: fx.Node) -> str:
    return f"{node.op} {getattr(node.target, '__name__', node.target)} (node {node.name})"
