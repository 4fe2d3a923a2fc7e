"""How the figures came about: threat model, settings, seeds, versions, hashes; and what is left."""

from __future__ import annotations

from collections.abc import Iterable

from cstar_core.reporting import words
from cstar_core.reporting.document import Block, Cell, Folded, Items, Note, Section, Table
from cstar_core.reporting.reading import Part

Row = tuple[Cell | str, ...]
MOST_ITEMS = 12  # of a list that is shown; report.json has all
MOST_ROWS = 400

_SETTINGS = (
    ("pgd", "settings"),
    ("autoattack", "settings"),
    ("curve_settings",),
    ("through_jpeg", "settings"),
    ("planted", "settings"),
)


def method(report: Part) -> Section:
    """Threat model and settings, then what else it takes to measure the same again."""
    blocks: list[Block] = [_threat(report)]
    blocks += _method(report)
    blocks.append(_hashes(report))
    settings = flat_table("Attack settings", _attack_settings(report))
    blocks.append(_folded("Attack settings", settings))
    for key in ("profile", "execution", "verification"):
        title = f"How it was run: {key}"
        blocks.append(_folded(title, flat_table(title, report.members(key))))
    environment = flat_table("Versions and hardware", report.members("environment"))
    blocks.append(_folded("Versions and hardware", environment))
    return Section("method", "How it was measured", tuple(blocks))


def _folded(title: str, table: Table) -> Block:
    return Folded(title, (table,)) if table.rows else Note(f"Not said: {title.lower()}.", "muted")


def _threat(report: Part) -> Table:
    threat, norm = report.part("threat_model"), report.text("threat_model", "norm")
    attacked = report.part("evaluation", "attacked")
    low_high = threat.interval("pixel_range") or (0.0, 1.0)
    rows: tuple[Row, ...] = (
        ("norm", words.name(norm) if norm else words.NOTHING),
        ("epsilon", words.epsilon(threat.number("epsilon"), norm)),
        ("pixel range", f"[{low_high[0]:g}, {low_high[1]:g}]"),
        ("attacker", threat.text("attacker") or words.NOTHING),
        ("images attacked", _attacked(attacked)),
        ("seed of the job", _exact(report.part("seed"))),
    )
    return Table("Threat model and examples", ("", ""), rows)


def _attacked(attacked: Part) -> str:
    count = attacked.number("n") or len(attacked.parts("index"))
    batch = attacked.number("batch_size")
    batches = "" if batch is None else f", in batches of {words.count(batch)}"
    return f"{words.count(count)} of the test split{batches}; report.json lists their rows"


def _method(report: Part) -> Iterable[Block]:
    found = report.part("method")
    if found.text("name"):
        note = found.text("note")
        yield Note(f"Method {found.text('name')}" + (f": {note}." if note else "."))
    fresh = report.part("before_fine_tuning")
    if fresh.number("held_out_robust_accuracy") is not None:
        yield Note(
            f"After phase {words.name(fresh.text('phase'))}, before it was trained as a small "
            f"network: {words.percent(fresh.number('held_out_clean_accuracy'))} clean, "
            f"{words.percent(fresh.number('held_out_robust_accuracy'))} robust on "
            f"{words.count(fresh.number('held_out_examples'))} held-out images.",
            "muted",
        )


def _hashes(report: Part) -> Table:
    found = (
        ("report", f"{report.text('format')} version {words.plain(report.part('version'))}"),
        ("job", report.text("job", "id")),
        ("model", _titled(report.part("model"))),
        ("weights, SHA-256", report.text("model", "weights_sha256")),
        *_baseline(report.part("baseline")),
        ("data set", _titled(report.part("dataset"))),
        ("data set, SHA-256", report.text("dataset", "content_sha256")),
        ("split, SHA-256", report.text("split_sha256")),
        ("attacked images and labels, SHA-256", report.text("evaluation", "attacked", "sha256")),
    )
    rows = tuple((label, Cell(text or words.NOTHING, "code")) for label, text in found)
    return Table("Names and hashes", ("", ""), rows)


def _baseline(baseline: Part) -> tuple[tuple[str, str], ...]:
    if not baseline:
        return ()
    return (
        ("baseline", _titled(baseline)),
        ("weights of the baseline, SHA-256", baseline.text("weights_sha256")),
    )


def _titled(part: Part) -> str:
    identifier = part.text("id")
    return f"{part.text('name')} ({identifier})" if identifier else part.text("name")


def _attack_settings(report: Part) -> Iterable[tuple[str, Part]]:
    """Those of the network in question; both networks are attacked alike."""
    after = report.part("evaluation", "after")
    for path in _SETTINGS:
        yield path[0].removesuffix("_settings"), after.part(*path)
    yield "pgd.start_seeds", report.part("evaluation", "attacked", "start_seeds")
    yield "transfer", report.part("evaluation", "transfer", "settings")
    yield "certified", after.part("certified", "method")


def flat_table(caption: str, members: Iterable[tuple[str, Part]]) -> Table:
    """Nested settings as one row per value, named by its path."""
    rows = [row for key, value in members for row in _flat(key, value)]
    return Table(caption, ("setting", "value"), tuple(rows[:MOST_ROWS]))


def _flat(key: str, value: Part) -> Iterable[Row]:
    if inner := value.members():
        for name, part in inner:
            yield from _flat(f"{key}.{name}", part)
    elif items := value.parts():
        yield Cell(key, "code"), _listed(items)
    elif value or value.truth() is not None:
        yield Cell(key, "code"), _exact(value)


def _listed(items: tuple[Part, ...]) -> str:
    if not items:
        return words.NOTHING
    shown = ", ".join(_exact(item) for item in items[:MOST_ITEMS])
    return f"{shown}, … ({len(items)} in all)" if len(items) > MOST_ITEMS else shown


def _exact(item: Part) -> str:
    """A whole number without separators, so that it can be copied."""
    whole = item.whole()
    return words.plain(item) if whole is None else str(whole)


def limits(report: Part) -> Section:
    """What the figures do not say, and notes of the run."""
    known = tuple(limit.text() for limit in report.parts("limits"))
    notes = tuple(note.text() for note in report.parts("notes"))
    blocks: list[Block] = [Items(known, "The report names no limits.")]
    if notes:
        blocks += [Note("Notes of the run:"), Items(notes)]
    return Section("limits", "Known limits and notes", tuple(blocks))


def subject(report: Part) -> str:
    """Which network on which data, in one line."""
    model = report.text("model", "name") or "a network"
    dataset = report.text("dataset", "name") or "a data set"
    kind = "Evaluation" if report.text("kind") == "evaluation" else "Compression"
    return f"{kind} of {model} on {dataset}"


def origin(report: Part) -> str:
    """Job and method, in one line."""
    method_name = report.text("method", "name") or report.text("job", "method")
    version = words.plain(report.part("version"))
    parts = (
        report.text("job", "id"),
        method_name and f"method {method_name}",
        f"report version {version}",
    )
    return " · ".join(part for part in parts if part)
