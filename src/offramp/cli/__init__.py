"""The command line: one function per verb; each parses, calls one function, shows its value."""

import sys
from collections.abc import Callable
from typing import Annotated

import typer

import offramp
from offramp.cli import deploying, evaluating, policies, running, simulating, training, watching
from offramp.cli.notices import be_quiet, shown_warnings
from offramp.cli.streams import alert, drop_output, prepare_streams
from offramp.cli.verb import FAILURES, Debug, Quiet, as_verb, explanation

app = typer.Typer(
    help="Early exits for pretrained CNNs: attach, train on the frozen backbone, compare.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"offramp {offramp.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_version)
    ] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Early exits for pretrained CNNs: attach, train on the frozen backbone, compare."""
    be_quiet(quiet)


_VERBS: tuple[Callable[..., None], ...] = (
    training.demo,
    training.cuts,
    training.finetune,
    training.train,
    evaluating.evaluate,
    training.runs,
    policies.tradeoff,
    policies.calibrate,
    deploying.export,
    running.run,
    deploying.bench,
    simulating.simulate,
    watching.watch,
)
_EXAMPLES = {
    "demo": ("offramp demo --out runs/demo",),
    "cuts": (
        "offramp cuts torchvision:resnet18 --suggest 3",
        "offramp cuts --backbone mine.py:network --input 1x28x28",
    ),
    "finetune": (
        "offramp finetune finetune.yaml --out runs/backbone --device cuda",
        "offramp finetune finetune.yaml --set train.lr=3e-5 --set trains=batch_norm",
        "offramp finetune finetune.yaml --dry-run",
    ),
    "train": (
        "offramp train plan.yaml --device cuda",
        "offramp train plan.yaml --set train.lr=3e-4 --out runs/slower",
        "offramp train plan.yaml --cache caches/photos --dry-run",
        "offramp train plan.yaml --backbone mine.py:network --data mine.py:data",
    ),
    "evaluate": (
        "offramp evaluate runs/plan --device cuda",
        "offramp evaluate runs/plan --data-root /mnt/photos",
        "offramp evaluate bundles/plan --data plan.yaml --engine openvino",
        "offramp evaluate bundles/plan --data photos --split test",
    ),
    "runs": ("offramp runs runs", "offramp runs experiments --json"),
    "tradeoff": ("offramp tradeoff runs/plan",),
    "calibrate": (
        "offramp calibrate runs/plan --max-drop 0.01",
        "offramp calibrate runs/plan --budget 2.5 --cost ms",
        "offramp calibrate bundles/plan --max-drop 0.01 --max-drop 0.02",
    ),
    "export": (
        "offramp export runs/plan bundles/plan",
        "offramp export runs/plan bundles/plan --engine onnxruntime --engine openvino",
    ),
    "run": (
        "offramp run runs/plan photo.jpg more/photos",
        "offramp run bundles/plan photo.jpg",
        "find photos -name '*.jpg' | offramp run runs/plan - --jsonl",
    ),
    "bench": (
        "offramp bench bundles/plan",
        "offramp bench bundles/plan --engine auto --threads 2 --save --plot bench.png",
    ),
    "simulate": ("offramp simulate runs/plan --rate 100 --deadline-ms 30",),
    "watch": (
        "offramp watch runs/plan --stream answers.txt",
        "my-server | offramp watch runs/plan --jsonl",
    ),
}
for verb in _VERBS:
    # The mark \b keeps the help page from joining the lines.
    examples = "".join(f"\n  {line}" for line in _EXAMPLES.get(verb.__name__, ()))
    app.command(epilog=f"\b\nExamples:{examples}")(as_verb(verb))


def main() -> None:
    """Run the command line; the exit codes are listed on the page of the command line."""
    debug = "--debug" in sys.argv
    prepare_streams()
    with shown_warnings(debug):
        try:
            app()
        except FAILURES as error:
            if debug:
                raise
            alert(f"error: {explanation(error)}")
            if isinstance(error, OSError):
                drop_output()  # it may be the stream that failed
            sys.exit(1)
