"""Real outputs: a run's model on images that neither its backbone nor its branches have seen."""

from pathlib import Path

from offramp.data import FashionMNIST
from offramp.multiexit.model import MultiExit
from offramp.outputs import ExitOutputs
from offramp.run.plan import load_plan


def on_official(run: Path, folder: Path) -> ExitOutputs:
    """What the run's model answers on all official test images of Fashion-MNIST.

    Backbone and branches were trained and chosen on images of the official training part.
    """
    data = load_plan(run / "plan.yaml").data
    if not isinstance(data, FashionMNIST):
        raise SystemExit(f"{run} was trained on {data.kind}; give a run of the demo's plan.")
    images = data.model_copy(update={"root": folder}).load().test
    return MultiExit.load(run).collect(images, split="test")
