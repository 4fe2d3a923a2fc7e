"""Algorithm 2, whole: from an uploaded network to a verified, smaller, robust one.

`run(workbench, state, observer)` goes through the phases of the task's method (`METHODS`: CSTAR and
its baselines), each a module of its own that reads and writes one `State`; the state is saved
after each phase and now and then within it, and a run that starts from a saved state ends with the
same bits as one that was never interrupted.
"""

from cstar_core.pipeline.methods import METHODS, Method
from cstar_core.pipeline.observer import Interrupted, Observer
from cstar_core.pipeline.profiles import PROFILES, Profile
from cstar_core.pipeline.run import PHASES, phases_of, run
from cstar_core.pipeline.state import State
from cstar_core.pipeline.task import Task
from cstar_core.pipeline.workbench import Workbench

__all__ = [
    "METHODS",
    "PHASES",
    "PROFILES",
    "Interrupted",
    "Method",
    "Observer",
    "Profile",
    "State",
    "Task",
    "Workbench",
    "phases_of",
    "run",
]
