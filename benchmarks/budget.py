"""How long does the search for a budget's thresholds take, beside the geometric rule?

    python benchmarks/budget.py [--rounds 5]

Both choose thresholds for the same budget on the same rows, one after the other in each round.
The geometric rule (MSDNet) looks at one number only, so it is the floor. Printed are the seconds
of both, and the median of their ratio over the rounds.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np

from offramp.calibration.budget import budgeted, geometric
from offramp.outputs import ExitOutputs
from offramp.policy import ExitPolicy

ROWS = (10_000, 100_000, 500_000)
STAGES, BRANCHES = (10, 20, 40, 30), (4, 3, 2, 0)
BUDGET = 50.0


def made(rows: int, seed: int) -> ExitOutputs:
    """Four exits, of which later ones are better, and more confident when they are right."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 5, rows)
    logits = random.normal(size=(len(STAGES), rows, 5)).astype(np.float32)
    hard = random.normal(size=rows)
    for exit in range(len(STAGES)):
        logits[exit, np.arange(rows), labels] += np.maximum(0.2, 1.2 + exit - 1.3 * hard)
    return ExitOutputs(
        outputs=logits,
        labels=labels,
        stage_flops=np.array(STAGES),
        branch_flops=np.array(BRANCHES),
    )


def seconds(choose: Callable[[ExitOutputs, float], ExitPolicy], outputs: ExitOutputs) -> float:
    """CPU seconds of one choice."""
    began = time.process_time()
    choose(outputs, BUDGET)
    return time.process_time() - began


def main() -> None:
    """Print one line for each number of rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print(f"{'rows':>8} {'search':>9} {'geometric':>9} {'ratio':>6}")
    for rows in ROWS:
        taken = []
        for seed in range(rounds):
            outputs = made(rows, seed)
            taken.append((seconds(budgeted, outputs), seconds(geometric, outputs)))
        search, rule = np.median(taken, 0)
        ratio = np.median([one / other for one, other in taken])
        print(f"{rows:8,} {search:7.2f} s {rule:7.2f} s {ratio:6.1f}")


if __name__ == "__main__":
    main()
