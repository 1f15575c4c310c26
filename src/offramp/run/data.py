"""RunData: the data that a run works on, loaded once and when it is first needed."""

from dataclasses import dataclass
from functools import cached_property

from offramp.data import PythonData, Splits
from offramp.data.python_file import splits_from
from offramp.errors import PlanError
from offramp.run.plan import Plan


@dataclass(frozen=True, eq=False)
class RunData:
    """Where the data of a run comes from.

    Attributes:
        plan: Names the data.
        given: The splits, if they are loaded already.
        function: `file.py:function` that returns the splits, for a plan whose data is `python`.
    """

    plan: Plan
    given: Splits | None = None
    function: str | None = None

    @cached_property
    def splits(self) -> Splits:
        """The data; files are not decoded yet.

        Raises:
            PlanError: Plan and function do not go together.
            DataError: The data is missing, damaged or not what it should be.
        """
        if self.function is None:
            return self.given or self.plan.data.load(check=False)
        if self.given is not None:
            raise PlanError("data_file and splits both give data. Leave one of them out.")
        if not isinstance(self.plan.data, PythonData):
            raise PlanError(
                f"--data {self.function} gives the data, and so does the plan, with `kind: "
                f"{self.plan.data.kind}`. Leave out --data, or write `data: {{kind: python}}`."
            )
        return splits_from(self.function, self.plan.task)
