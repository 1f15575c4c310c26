"""Cuts of a backbone: places, taps, their order, and checks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import fx

from offramp.arguments import as_items, check_kind
from offramp.backbones.analysis import Analysis
from offramp.backbones.partition import Flow, Partition, divide_graph
from offramp.errors import CutError
from offramp.spec import FINAL


@dataclass(frozen=True)
class Cut:
    """Where a backbone is cut and what branches read there.

    Attributes:
        name: Name in plans, tables and files.
        after: Places that the stage before the cut has to reach; the taps if left empty.
        taps: Places whose tensors branches read; the places of `after` if left empty.
    """

    name: str
    after: tuple[str, ...] = ()
    taps: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_kind(self.name, str, "the name of a Cut", "Give a string, such as 'early'.")
        for field in ("after", "taps"):
            what, remedy = f"{field} of Cut {self.name!r}", "Give a tuple of places."
            places = as_items(getattr(self, field), what, remedy)
            for place in places:
                check_kind(place, str, f"a place in {what}", "Give the name of a place.")
            object.__setattr__(self, field, places)
        if not self.after and not self.taps:
            raise CutError(
                f"Cut {self.name!r} names no place. Give after=(place, ...), taps=(place, ...) "
                "or both."
            )

    @property
    def places(self) -> tuple[str, ...]:
        """All places that the stage before the cut computes."""
        return tuple(dict.fromkeys((*self.after, *self.taps)))


def spelled(after: Sequence[str | Cut] | Cut) -> list[Cut]:
    """The cuts, each with both its places and its taps."""
    if isinstance(after, str | Cut):
        place = f"Cut({after.name!r}, ...)" if isinstance(after, Cut) else repr(after)
        raise CutError(f"after is a list of places, even for a single one: after=[{place}].")
    if not isinstance(after, Iterable):
        raise CutError(f"after is a list of places, not {after!r}: for example after=['layer1'].")
    given: Sequence[object] = after
    if wrong := [place for place in given if not isinstance(place, str | Cut)]:
        raise CutError(
            f"after holds {wrong[0]!r}; it takes names of places and `Cut`s. `offramp cuts` lists "
            "the places of a backbone."
        )
    cuts = [Cut(place, (place,)) if isinstance(place, str) else place for place in after]
    return [Cut(each.name, each.after or each.taps, each.taps or each.after) for each in cuts]


def check_names(cuts: Sequence[Cut]) -> None:
    """Refuse an empty list of cuts, two of one name, and the name of the last exit."""
    names = [cut.name for cut in cuts]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise CutError(
            f"Two cuts are called {', '.join(map(repr, twice))}. Give each its own name."
        )
    if FINAL in names:
        raise CutError(
            f"No cut can be called {FINAL!r}, which is the name of the backbone's own exit. Give "
            f"it another name, such as Cut('my_{FINAL}', after=({FINAL!r},))."
        )
    if not cuts:
        raise CutError("after is empty. Give at least one place to cut after.")


def in_order(cuts: Sequence[Cut], analysis: Analysis, flow: Flow) -> list[Cut]:
    """The cuts in graph order, each with its places checked."""
    reach: dict[str, frozenset[fx.Node]] = {}
    for each in cuts:
        ends = [_end(analysis, place) for place in each.places]
        reach[each.name] = frozenset(
            node for node in flow.ancestors(ends) if flow.is_computed(node)
        )
        if not reach[each.name]:
            raise CutError(
                f"Cut {each.name!r} is at the input: nothing runs before it. Cut after a layer."
            )
        if analysis.values[analysis.answer].same_as in ends:
            raise CutError(
                f"Cut {each.name!r} is at the output of the whole backbone: nothing runs after "
                "it, and the backbone's own exit is already there. Cut before the last layer."
            )
    ordered = sorted(
        cuts,
        key=lambda each: (
            max(map(flow.order.__getitem__, reach[each.name])),
            len(reach[each.name]),
        ),
    )
    _check_order([(each.name, reach[each.name]) for each in ordered])
    return ordered


def _check_order(ordered: Sequence[tuple[str, frozenset[fx.Node]]]) -> None:
    """Refuse a cut whose stage would run nothing after the cuts before it."""
    reached: frozenset[fx.Node] = frozenset()
    for index, (name, reach) in enumerate(ordered):
        before = ordered[:index]
        same = [other for other, others in before if others == reach]
        if same:
            raise CutError(
                f"Cuts {same[0]!r} and {name!r} are at the same place: no operation lies between "
                "them. Keep one of them."
            )
        if reach <= reached:
            raise CutError(
                f"The stage of cut {name!r} would be empty: the stages of the cuts before it "
                f"({', '.join(repr(other) for other, _ in before)}) together compute all that it "
                "needs. Leave it out, or move its taps to the last of those cuts."
            )
        reached |= reach


def _end(analysis: Analysis, place: str) -> fx.Node:
    return analysis.values[analysis.names.find(place)].same_as


def divide(cuts: Sequence[Cut], analysis: Analysis, flow: Flow) -> Partition:
    """Divide the graph into stages, one cut after another.

    Raises:
        CutError: Something other than a tensor would have to cross a cut.
    """
    ends = [[_end(analysis, place) for place in each.places] for each in cuts]
    taps = [tuple(_end(analysis, place) for place in each.taps) for each in cuts]
    parts = divide_graph(flow, ends, taps)
    for each, live in zip(cuts, parts.live[1:], strict=True):
        for node in live:
            if analysis.values[node].kind == "pack":
                raise CutError(
                    f"{analysis.node_names[node]} returns {analysis.values[node].about} that "
                    f"holds more than tensors, and it is still needed after cut {each.name!r}. "
                    "Only tensors can cross a cut: cut before it is made or after its last use."
                )
    return parts
