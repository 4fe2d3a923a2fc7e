"""Stateless randomness: every generator is derived from a seed and the names of its purpose.

A resumed run asks for the same names and so draws the same numbers: no generator state is saved.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_SEED_BYTES = 8


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A seed below 2^63 from SHA-256 of `seed` and `purpose`; equal arguments, equal seeds.

    The low 32 bits, all that torch's CPU generator uses, are as well mixed as the rest.
    """
    digest = hashlib.sha256(json.dumps([seed, *purpose]).encode()).digest()
    return int.from_bytes(digest[:_SEED_BYTES], "big") >> 1


def generator(
    seed: int, *purpose: str | int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A new generator on `device`, for example `generator(0, "attack", epoch, step)`."""
    return torch.Generator(device=device).manual_seed(derive_seed(seed, *purpose))


@contextmanager
def global_generator(
    seed: int, *purpose: str | int, device: torch.device | str = "cpu"
) -> Iterator[None]:
    """Seed torch's global generators inside, and restore them at exit: for layers like dropout."""
    on_gpu = torch.device(device).type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        derived = derive_seed(seed, *purpose)
        torch.default_generator.manual_seed(derived)
        if on_gpu:
            torch.cuda.manual_seed(derived)
        yield
