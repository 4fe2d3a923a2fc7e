"""Union-find over the channel dimensions of a network."""

from __future__ import annotations

from dataclasses import dataclass

from cstar_core.pruning.groups import ChannelGroup


@dataclass
class _Dimension:
    """`parent` is its own number at a root, whose name, size and reason are the group's."""

    name: str
    size: int
    reason: str
    parent: int


class Dimensions:
    """Channel dimensions, known by number, that are united when their channels are coupled."""

    def __init__(self) -> None:
        self._all: list[_Dimension] = []

    def new(self, name: str, size: int, *, reason: str = "") -> int:
        """Add a dimension of `size` channels; with a `reason` it keeps all of them."""
        self._all.append(_Dimension(name, size, reason, len(self._all)))
        return len(self._all) - 1

    def size(self, number: int) -> int:
        """How many channels it has."""
        return self._root(number).size

    def unite(self, one: int, other: int) -> int:
        """Couple two dimensions of one size; the older one names the group and is returned."""
        first, second = sorted((self._root(one), self._root(other)), key=lambda root: root.parent)
        first.reason = first.reason or second.reason
        second.parent = first.parent
        return first.parent

    def freeze(self, number: int, reason: str) -> None:
        """Keep all channels, for the first reason given."""
        root = self._root(number)
        root.reason = root.reason or reason

    def group_name(self, number: int) -> str:
        """The name of the group it belongs to."""
        return self._root(number).name

    def groups(self) -> tuple[ChannelGroup, ...]:
        """All groups, oldest first."""
        roots = [each for number, each in enumerate(self._all) if each.parent == number]
        return tuple(ChannelGroup(root.name, root.size, root.reason) for root in roots)

    def _root(self, number: int) -> _Dimension:
        while self._all[number].parent != number:
            number = self._all[number].parent
        return self._all[number]
