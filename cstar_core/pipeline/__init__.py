"""Algorithm 2, whole: from an uploaded network to a verified, smaller, robust one.

`run(task, workbench, observer)` goes through `PHASES`, each a module of its own that reads and
writes one `State`; the state is saved after each phase and now and then within it, and a run that
starts from a saved state ends with the same bits as one that was never interrupted.
"""

from cstar_core.pipeline.observer import Interrupted, Observer
from cstar_core.pipeline.profiles import PROFILES, Profile
from cstar_core.pipeline.run import PHASES, run
from cstar_core.pipeline.state import State
from cstar_core.pipeline.task import Task
from cstar_core.pipeline.workbench import Workbench

__all__ = [
    "PHASES",
    "PROFILES",
    "Interrupted",
    "Observer",
    "Profile",
    "State",
    "Task",
    "Workbench",
    "run",
]
