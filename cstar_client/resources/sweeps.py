"""`client.sweeps`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Unpack, cast

from cstar_client import lists, waiting
from cstar_client.documents import (
    Axis,
    JobFields,
    Norm,
    Pareto,
    Profile,
    Reference,
    Sweep,
    identifier,
    segment,
    targets,
)
from cstar_client.transport import Transport, document

ENDED = frozenset({"succeeded", "partly_failed", "failed", "cancelled"})


@dataclass(frozen=True)
class Sweeps:
    """Several compressions of one model asked for together: one job each, one frontier."""

    transport: Transport

    def create(
        self,
        model: Reference,
        dataset: Reference,
        *,
        epsilon: float,
        ratios: Sequence[float] = (),
        profiles: Sequence[Profile] = (),
        seeds: Sequence[int] = (),
        norm: Norm = "linf",
        min_accuracy: float | None = None,
        min_clean_accuracy: float | None = None,
        idempotency_key: str | None = None,
        **fields: Unpack[JobFields],
    ) -> Sweep:
        """Ask for a job for each combination of `ratios`, `profiles` and `seeds`.

        Raises InvalidRequest with the ratios out of reach; there is no job then.
        """
        tried = {"ratios": ratios, "profiles": profiles, "seeds": seeds}
        body: dict[str, Any] = {
            "model_id": identifier(model),
            "dataset_id": identifier(dataset),
            "targets": targets(norm, epsilon, min_accuracy, min_clean_accuracy),
        }
        body |= {name: list(values) for name, values in tried.items() if values}
        made = self.transport.post(
            "/v1/sweeps", {**body, **fields}, idempotency_key=idempotency_key
        )
        return cast(Sweep, made)

    def get(self, sweep: Reference) -> Sweep:
        """Return a sweep."""
        return cast(Sweep, self.transport.get(_path(sweep)))

    def list(self) -> Iterator[Sweep]:
        """Yield the sweeps, newest first."""
        return lists.rows(self.transport, "/v1/sweeps")

    def wait(
        self,
        sweep: Reference,
        *,
        timeout_s: float | None = None,
        on_update: Callable[[Sweep], None] | None = None,
    ) -> Sweep:
        """Return a sweep once all of its jobs have ended, however; raises Timeout."""
        path = _path(sweep)
        found = waiting.until(self.transport, path, ENDED, timeout_s=timeout_s, on_update=on_update)
        return cast(Sweep, found)

    def cancel(self, sweep: Reference) -> Sweep:
        """Cancel every job of a sweep that has not ended."""
        return cast(Sweep, document(self.transport.send("POST", f"{_path(sweep)}/cancel")))

    def pareto(self, sweep: Reference, *, axes: Sequence[Axis] = ()) -> Pareto:
        """Return what the jobs of a sweep that succeeded came to, and which are on the front."""
        found = self.transport.get(f"{_path(sweep)}/pareto", axes=",".join(axes) or None)
        return cast(Pareto, found)

    def delete(self, sweep: Reference) -> None:
        """Delete a sweep that has ended, with all of its jobs."""
        self.transport.send("DELETE", _path(sweep))


def _path(sweep: Reference) -> str:
    return f"/v1/sweeps/{segment(sweep)}"
