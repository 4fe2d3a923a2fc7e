"""Every layer: what became of it and why, for plans that choose ranks or channels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cstar_core.reporting import words
from cstar_core.reporting.document import Block, Cell, Folded, Note, Section, Table
from cstar_core.reporting.reading import Part

Row = tuple[Cell | str, ...]
OPEN_UP_TO = 24  # rows: a longer table is folded


@dataclass(frozen=True)
class Shares:
    """What a layer keeps of its output and input side, in 0..1, and in figures.

    `whole` says that it stays as it was.
    """

    name: str
    out: float | None
    inner: float | None
    figures: str
    whole: bool


def keeps_channels(report: Part) -> bool:
    """Whether the plan drops channels instead of choosing ranks."""
    return bool(report.part("plan", "groups"))


def layers(report: Part) -> Section:
    """The table of all layers."""
    plan = report.part("plan")
    if not plan.parts("layers"):
        return Section("layers", "Every layer", (Note("Not run: no layer was changed."),))
    table = _channel_table(plan) if keeps_channels(report) else _rank_table(plan)
    blocks: list[Block] = [Note(line, "muted") for line in _strategy(plan)]
    if len(table.rows) > OPEN_UP_TO:
        blocks.append(Folded(f"All {len(table.rows)} layers, each with its reason", (table,)))
    else:
        blocks.append(table)
    return Section("layers", "Every layer, and why", tuple(blocks))


def _strategy(plan: Part) -> Iterable[str]:
    budgets = "; ".join(
        f"{budget.text('unit')} at most {words.count(budget.number('limit'))}"
        for budget in plan.parts("budgets")
    )
    name, strategy = plan.text("name"), plan.text("strategy")
    if name or strategy:
        yield f"Plan {name or 'unnamed'}, strategy {strategy or 'unnamed'}" + (
            f", under the budget: {budgets}." if budgets else "."
        )


def _rank_table(plan: Part) -> Table:
    rows = tuple(_rank_row(layer) for layer in plan.parts("layers"))
    columns = (
        "layer",
        "form",
        "ranks (out, in)",
        "energy kept",
        "parameters",
        "dense parameters",
        "MACs",
        "dense MACs",
        "reason",
    )
    caption = "Layers; the energy kept is the share of the squared norm of the weight"
    return Table(caption, columns, rows, numeric=(2, 3, 4, 5, 6, 7))


def _rank_row(layer: Part) -> Row:
    ranks = layer.numbers("ranks")
    return (
        Cell(layer.text("name") or words.NOTHING, "code"),
        Cell(_form(layer), "nowrap"),
        ", ".join(words.count(rank) for rank in ranks) or words.NOTHING,
        words.percent(layer.number("energy_kept")),
        words.count(layer.number("parameters")),
        words.count(layer.number("dense_parameters")),
        words.count(layer.number("macs")),
        words.count(layer.number("dense_macs")),
        layer.text("reason") or _rank_reason(layer),
    )


def _form(layer: Part) -> str:
    """Such as `conv, Tucker-2`; whether a layer is dense is seen by its reason as well."""
    parts = (layer.text("kind"), words.name(layer.text("method") or "dense"))
    return ", ".join(part for part in parts if part)


def _rank_reason(layer: Part) -> str:
    """Why a layer is factorised as it is, in the words of its figures."""
    if layer.text("method") in ("", "dense"):
        return "stays dense; the plan does not say why"
    before, after = layer.number("dense_parameters"), layer.number("parameters")
    kept = words.percent(layer.number("energy_kept"))
    return f"keeps {kept} of its energy, {words.change(before, after)}"


def _channel_table(plan: Part) -> Table:
    outputs = {member.text("name"): member.text("outputs") for member in plan.parts("members")}
    groups = {group.text("name"): group for group in plan.parts("groups")}
    rows = tuple(
        _channel_row(layer, groups.get(outputs.get(layer.text("name"), ""), Part()))
        for layer in plan.parts("layers")
    )
    columns = (
        "layer",
        "kind",
        "outputs kept",
        "inputs kept",
        "parameters",
        "dense parameters",
        "MACs",
        "dense MACs",
        "reason",
    )
    return Table("Layers", columns, rows, numeric=(2, 3, 4, 5, 6, 7))


def _channel_row(layer: Part, group: Part) -> Row:
    return (
        Cell(layer.text("name") or words.NOTHING, "code"),
        layer.text("kind") or words.NOTHING,
        _of(layer, "outputs"),
        _of(layer, "inputs"),
        words.count(layer.number("parameters")),
        words.count(layer.number("dense_parameters")),
        words.count(layer.number("macs")),
        words.count(layer.number("dense_macs")),
        group.text("reason") or _channel_reason(group),
    )


def _of(layer: Part, side: str) -> str:
    return f"{words.count(layer.number(side))} of {words.count(layer.number(f'dense_{side}'))}"


def _channel_reason(group: Part) -> str:
    if not group:
        return "follows the layers it is tied to"
    kept, size = len(group.parts("kept")), words.count(group.number("size"))
    return f"keeps {kept} of {size} channels of the group {group.text('name')}"


def layer_shares(report: Part) -> list[Shares]:
    """What every layer keeps, for the chart."""
    share = _channel_shares if keeps_channels(report) else _rank_shares
    return [share(layer) for layer in report.parts("plan", "layers")]


def _channel_shares(layer: Part) -> Shares:
    out, out_of = layer.number("outputs"), layer.number("dense_outputs")
    inner, inner_of = layer.number("inputs"), layer.number("dense_inputs")
    figures = f"{_over(out, out_of)} · {_over(inner, inner_of)}"
    whole = out == out_of and inner == inner_of
    return Shares(layer.text("name"), _share(out, out_of), _share(inner, inner_of), figures, whole)


def _rank_shares(layer: Part) -> Shares:
    """Shares of ranks where the layer's size is known, else of its parameters."""
    name, ranks, shape = layer.text("name"), layer.numbers("ranks"), layer.numbers("shape")
    if layer.text("method") == "dense" or len(ranks) != 2:
        return Shares(name, 1.0, 1.0, "dense", whole=True)
    if len(shape) >= 2:
        out, inner = ranks
        figures = f"{_over(out, shape[0])} · {_over(inner, shape[1])}"
        return Shares(name, _share(out, shape[0]), _share(inner, shape[1]), figures, whole=False)
    kept = _share(layer.number("parameters"), layer.number("dense_parameters"))
    return Shares(name, kept, None, "ranks " + ", ".join(map(words.count, ranks)), whole=False)


def _share(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole


def _over(part: float | None, whole: float | None) -> str:
    return f"{words.count(part)}/{words.count(whole)}"
