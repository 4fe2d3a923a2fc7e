"""Errors of the method, each with the stable code that a job or a rejected upload reports."""

from __future__ import annotations


class CstarError(Exception):
    """Base of every error that is the caller's to mend; `code` is stable, the message says how."""

    code = "internal"


class InvalidModel(CstarError):
    """The uploaded weights cannot be used; the message says why and what to do next."""

    code = "invalid_model"

    def __init__(self, message: str, *, code: str = "invalid_model") -> None:
        super().__init__(message)
        self.code = code


class InvalidDataset(CstarError):
    """The uploaded data set cannot be used; the message says why and what to do next."""

    code = "invalid_dataset"

    def __init__(self, message: str, *, code: str = "invalid_dataset") -> None:
        super().__init__(message)
        self.code = code


class TargetInfeasible(CstarError):
    """No ranks meet the budget; `best` is the smallest value of `unit` that can be reached."""

    code = "target_infeasible"

    def __init__(self, message: str, *, unit: str, best: int) -> None:
        super().__init__(message)
        self.unit = unit
        self.best = best


class TargetUnsupported(CstarError):
    """The method asked for cannot plan for this kind of target; the message names what can."""

    code = "target_infeasible"


class Diverged(CstarError):
    """Training produced a loss or weights that are not finite."""

    code = "diverged"
