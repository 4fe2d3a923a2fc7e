"""Everything a client takes home: weights, architecture, loader, ONNX, manifest, and their check.

`graph` describes a network as data, `loader` is the file shipped to run that data with torch alone,
`writer` puts both beside the weights, `onnx_model` exports and compares, `verify` scores the files
again in a fresh process, `manifest` lists them with their hashes. No pickle anywhere; nothing here
trains or knows of jobs.
"""

from cstar_core.export.graph import describe_graph
from cstar_core.export.loader import load
from cstar_core.export.manifest import manifest
from cstar_core.export.onnx_model import export_onnx, onnx_parity
from cstar_core.export.writer import write_model

__all__ = [
    "describe_graph",
    "export_onnx",
    "load",
    "manifest",
    "onnx_parity",
    "write_model",
]
