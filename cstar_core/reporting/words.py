"""How figures are written: units, signs, digits. What is None is written as a dash."""

from __future__ import annotations

import math

from cstar_core.reporting.reading import Part

NOTHING = "–"  # noqa: RUF001 - the dash of typography
MINUS = "−"  # noqa: RUF001 - the sign of typography
TIMES = "×"  # noqa: RUF001 - the sign of typography
TIED = "\u00a0"  # a space at which no line ends
_NAMES = {
    "linf": "L∞",
    "l2": "L2",
    "ratio": "compression ratio",
    "max_params": "parameters, at most",
    "max_macs": "MACs, at most",
    "max_bytes": "bytes of weights, at most",
    "max_latency_ms": "latency, at most",
    "robust_accuracy": "robust accuracy, at least",
    "clean_accuracy": "clean accuracy, at least",
    "autoattack-standard": "AutoAttack",
    "autoattack": "AutoAttack",
    "tucker2": "Tucker-2",
    "svd": "SVD pair",
    "before": "uploaded",
    "after": "compressed",
}


def name(key: str) -> str:
    """The name of a metric, attack or norm as a reader knows it."""
    if key in _NAMES:
        return _NAMES[key]
    return key.replace("pgd-", "PGD-", 1) if key.startswith("pgd-") else key.replace("_", " ")


def percent(share: float | None, *, digits: int = 1) -> str:
    """0.9917 as `99.2 %`."""
    return NOTHING if share is None else f"{100 * share:.{digits}f}{TIED}%"


def points(difference: float | None) -> str:
    """A difference of two shares: -0.005 as `−0.5 points`."""
    if difference is None:
        return NOTHING
    size = f"{abs(100 * difference):.1f}"
    if size == "0.0":
        return f"±0.0{TIED}points"
    return f"{'+' if difference > 0 else MINUS}{size}{TIED}points"


def interval(ends: tuple[float, float] | None, *, digits: int = 1) -> str:
    """Two shares as `[97.6, 99.7]`, in percent; nothing where there is no interval."""
    if ends is None:
        return ""
    low, high = (f"{100 * end:.{digits}f}" for end in ends)
    return f"[{low},{TIED}{high}]"


def accuracy(figure: Part, *, digits: int = 1) -> str:
    """A share with its interval: `99.2 % [97.6, 99.7]`."""
    value = figure.number("value")
    ends = interval(figure.interval("interval"), digits=digits)
    return f"{percent(value, digits=digits)} {ends}".strip()


def count(number: float | None) -> str:
    """75002 as `75,002`."""
    return NOTHING if number is None else f"{number:,.0f}"


def size(number: float | None) -> str:
    """Bytes as `298.4 KiB`."""
    if number is None:
        return NOTHING
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if abs(number) < 1024 or unit == "GiB":
            return f"{number:,.0f}{TIED}{unit}" if unit == "bytes" else f"{number:,.1f}{TIED}{unit}"
        number /= 1024
    return NOTHING


def decimal(number: float | None, *, digits: int = 3) -> str:
    """`digits` significant digits, whole numbers in full."""
    if number is None:
        return NOTHING
    if number == int(number) and abs(number) < 1e15:
        return f"{number:,.0f}".replace("-", MINUS)
    return f"{number:.{digits}g}".replace("-", MINUS)


def milliseconds(number: float | None) -> str:
    """0.598 as `0.60 ms`."""
    if number is None:
        return NOTHING
    return f"{number:.2f}{TIED}ms" if number < 100 else f"{number:,.0f}{TIED}ms"


def change(
    before: float | None, after: float | None, *, less: str = "smaller", more: str = "larger"
) -> str:
    """How many times less or more there is than before, such as `4.58× smaller`."""
    if not before or not after or before < 0 or after < 0:
        return NOTHING
    ratio = before / after
    if f"{ratio:.2f}" == "1.00":
        return "the same"
    return f"{max(ratio, 1 / ratio):.2f}{TIMES} {less if ratio > 1 else more}"


def epsilon(number: float | None, norm: str = "") -> str:
    """0.03137 as `0.0314 (8/255)` in L-inf, where grey levels are what people speak of."""
    if number is None:
        return NOTHING
    plain = f"{number:.4g}"
    levels = grey_levels(number) if norm == "linf" else ""
    return f"{plain} ({levels})" if levels else plain


def grey_levels(number: float) -> str:
    """`8/255` where a whole number of 255 levels is meant, nothing otherwise."""
    levels = round(255 * number)
    meant = 0 < levels <= 255 and math.isclose(255 * number, levels, abs_tol=5e-3)
    return f"{levels}/255" if meant else ""


def p_value(number: float | None) -> str:
    """The p-value of a test."""
    if number is None:
        return ""
    return f"p{TIED}<{TIED}0.0001" if number < 1e-4 else f"p{TIED}={TIED}{number:.2g}"


def plain(value: Part) -> str:
    """Any single value as text."""
    if (number := value.number()) is not None:
        return decimal(number, digits=4)
    if (truth := value.truth()) is not None:
        return "yes" if truth else "no"
    return value.text() or NOTHING


def shortened(text: str, length: int) -> str:
    """At most `length` characters: the middle of a longer text gives way to dots."""
    if len(text) <= length:
        return text
    kept = length - 1
    return f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"
