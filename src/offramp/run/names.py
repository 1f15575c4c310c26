"""Names of files and folders in a run folder."""

from offramp.storage.names import POLICY as POLICY
from offramp.storage.names import lacking as lacking
from offramp.storage.names import outputs_of as outputs_of

PLAN = "plan.yaml"
PLAN_ENDINGS = (".yaml", ".yml")
METRICS = "metrics.json"
ENVIRONMENT = "environment.json"
HISTORY = "history.json"
"""Epochs of a finetuned backbone."""
WORK = "work"
"""Folder of the cache and of the training state; may be deleted once the run is done."""
EXTENSION = "extension.yaml"
"""In the work folder, the plan of an unfinished extension, for listings."""
