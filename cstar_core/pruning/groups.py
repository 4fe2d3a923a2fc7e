"""What coupling finds: groups of channels, and the modules they run through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["conv", "depthwise", "norm", "linear"]


@dataclass(frozen=True)
class ChannelGroup:
    """`size` coupled channels, named after the first layer that makes them.

    `reason` says in words why none of them may be dropped; it is empty if they may.
    """

    name: str
    size: int
    reason: str


@dataclass(frozen=True)
class Member:
    """A module with the groups of its input and output channels.

    A linear layer that follows a flattened (C, H, W) takes `spread` = H W features per channel.
    Norms and depthwise convolutions have one group, as input and as output.
    """

    name: str
    role: Role
    inputs: str
    outputs: str
    spread: int = 1


@dataclass(frozen=True)
class Coupling:
    """All groups and the modules they run through, both in the order of a forward pass."""

    groups: tuple[ChannelGroup, ...]
    members: tuple[Member, ...]

    @property
    def prunable(self) -> tuple[ChannelGroup, ...]:
        """The groups from which channels may be dropped."""
        return tuple(group for group in self.groups if not group.reason and group.size > 1)
