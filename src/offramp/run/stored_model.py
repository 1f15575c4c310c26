"""Reading the plan and the model of a run folder."""

from pathlib import Path

from offramp.errors import BundleError, PlanError
from offramp.multiexit.model import MultiExit
from offramp.run.names import PLAN
from offramp.run.plan import Plan, checked_plan, load_plan
from offramp.run.prepare import build_backbone
from offramp.storage.folder import Contents
from offramp.storage.manifest import RUN


def plan_and_model(stored: Contents, backbone_file: str | None) -> tuple[Plan, MultiExit]:
    """Plan and model from what was read from a run, including its weights.

    Raises:
        BundleError: It is not a run of a plan, or its plan or weights were changed.
    """
    if "plan" not in stored.manifest:
        raise BundleError(
            f"{stored.folder} holds a model that `MultiExit.save` wrote, not a run of a plan. Read "
            "it with MultiExit.load, or name a folder that `offramp train` wrote."
        )
    try:
        plan = checked_plan(stored.manifest["plan"], stored.folder / PLAN, Plan)
    except PlanError as error:
        raise BundleError(
            f"another version of offramp made the run in {stored.folder}: {error}\nUse that "
            "version, or train into another folder."
        ) from error
    plan = _current(stored.folder / PLAN, plan)
    by_flag = build_backbone(plan, backbone_file) if backbone_file is not None else None
    return plan, MultiExit.read(stored, backbone=by_flag)


def _current(path: Path, plan: Plan) -> Plan:
    """The plan in a run's plan file, whose comments and data paths may have changed."""
    if not path.exists():  # the manifest has the plan
        return plan
    try:
        found = load_plan(path)
    except PlanError as error:
        raise BundleError(
            f"{error}\nIt is the plan of a finished run. {RUN.remedy(PLAN)}"
        ) from error
    if different := found.differences(plan):
        raise BundleError(
            f"{path} was changed after the run was made; it differs in {', '.join(different)}. "
            f"{RUN.remedy(PLAN)}"
        )
    return found
