import json
import math
from dataclasses import dataclass

import numpy as np

from offramp.record import Record


@dataclass(frozen=True)
class Ends(Record):
    low: float
    high: float

    def as_json(self) -> list[float]:
        return [self.low, self.high]


@dataclass(frozen=True, eq=False)
class Row(Record):
    name: str
    ends: Ends | None
    times: dict[str, float]
    shares: np.ndarray
    seeds: tuple[int, ...] = ()


def test_a_record_is_its_fields_and_each_record_in_it_decides_for_itself() -> None:
    row = Row("late", Ends(0.5, 1.0), {"p99": math.inf}, np.array([[0.25], [math.nan]]), (3, 5))
    assert json.loads(json.dumps(row.as_json(), allow_nan=False)) == {
        "name": "late",
        "ends": [0.5, 1.0],
        "times": {"p99": None},
        "shares": [[0.25], [None]],
        "seeds": [3, 5],
    }
    assert Row("early", None, {}, np.empty(0)).as_json()["ends"] is None
