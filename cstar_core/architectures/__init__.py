"""The networks whose weights the service can read: one entry for each, known by name.

What lives here: their modules under the key names of published checkpoints, and how weights are
recognised, fitted and loaded. What does not: reading files (`cstar_core.files`), or any change to
a network (`cstar_core.ranks` and later). To add an architecture, add its `Entry` to a family's
`ENTRIES`.

Every network can be traced by `torch.fx.symbolic_trace` into plain `torch.nn` modules, addition,
constant slices and zero padding.
"""

from cstar_core.architectures.entry import Architecture, Shapes
from cstar_core.architectures.matching import fit, load, recognise
from cstar_core.architectures.registry import build, classifier_name, names, stem_name

__all__ = [
    "Architecture",
    "Shapes",
    "build",
    "classifier_name",
    "fit",
    "load",
    "names",
    "recognise",
    "stem_name",
]
