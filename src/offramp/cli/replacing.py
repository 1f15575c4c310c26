"""Replacing: save a policy, and say which earlier one it replaces."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offramp.cli.showing import POLICY
from offramp.errors import NoPolicyError, OfframpError, PlanError

if TYPE_CHECKING:
    from offramp.policy import ExitPolicy, PolicyMenu
    from offramp.storage.folder import Contents


@dataclass(frozen=True)
class Earlier:
    """Content of a file before a policy is saved to it.

    Attributes:
        policies: One policy, all of a menu, or none if the file cannot be read as a policy.
    """

    policies: "tuple[ExitPolicy, ...]"

    @classmethod
    def of(cls, file: Path) -> "Earlier | None":
        """Read the file; None if there is no file."""
        from offramp.policy import load_policies

        if not file.is_file():
            return None
        try:
            return cls(load_policies(file))
        except OfframpError:
            return cls(())

    @property
    def may_promise(self) -> bool:
        """Whether it has a promise, or may have one because it cannot be read."""
        return not self.policies or any(each.promise is not None for each in self.policies)

    def __str__(self) -> str:
        promises = [each.promise for each in self.policies if each.promise is not None]
        if not self.policies:
            return "something that cannot be read as a policy"
        if not promises:
            return "a policy without a promise"
        if len(promises) == 1:
            return f"a policy with the promise that {promises[0]}"
        limits = ", ".join(str(each.limit) for each in promises)
        return f"a menu of policies that promise a {promises[0].goal} of {limits}"


@dataclass(frozen=True)
class Saved:
    """The file that a policy was saved to, and what it replaced."""

    file: Path
    replaced: Earlier | None

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        earlier = self.replaced and [each.as_json() for each in self.replaced.policies]
        return {"file": str(self.file), "replaced": earlier}

    def __str__(self) -> str:
        replaced = "" if self.replaced is None else f"\nreplaced: {self.replaced}"
        return f"written: {self.file}{replaced}"


@dataclass(frozen=True)
class Target:
    """Where a policy is saved.

    Attributes:
        file: The file.
        run: The run that it becomes the policy of; None if it is a file of its own.
    """

    file: Path
    run: "Contents | None"

    @classmethod
    def of(cls, out: Path | None, run: "Contents | None", name: str = POLICY) -> "Target":
        """`out`, or else the policy of this name in the run that it is calibrated on.

        Raises:
            PlanError: The file is part of a run, and is not the policy of this one.
        """
        from offramp.storage.folder import owner_of
        from offramp.storage.manifest import BUNDLE, RUN

        own = None if run is None else run.folder / name
        file = out or own or Path(name)
        folders = [owner_of(file, kind, [POLICY, name]) for kind in (RUN, BUNDLE)]
        folder = next((each for each in folders if each is not None), None)
        if own is not None and (out is None or (own.parent.resolve(), name) == (folder, out.name)):
            return cls(file, run)
        if folder is None:
            return cls(file, None)
        raise PlanError(
            f"{file} is part of the run in {folder}, which refuses a file that it did not write. "
            f"To give that run a policy, calibrate it without --out: `offramp calibrate {folder}`. "
            "To keep a policy beside it, choose another --out FILE."
        )


def save_policy(policy: "ExitPolicy | PolicyMenu", target: Target, replace: bool) -> Saved:
    """Save a policy.

    Raises:
        PlanError: It has no promise, the one in that file has, and `replace` is false.
        BundleError: The outputs that it was calibrated on are not the run's any more.
    """
    from offramp.bundle import card_with
    from offramp.bundle.contents import README
    from offramp.storage.atomic import write_bytes
    from offramp.storage.folder import changing
    from offramp.storage.manifest import BUNDLE, kind_of

    file, run = target.file, target.run
    if run is None:
        earlier = _replaceable(file, policy, replace)
        policy.save(file)
    else:
        kind = kind_of(run.folder)
        card = card_with(run.folder, file.name, policy) if kind is BUNDLE else None
        with changing(run.folder, kind, since=run) as staged:
            earlier = _replaceable(file, policy, replace)
            policy.save(staged / file.name)
            if card is not None:
                write_bytes(staged / README, card.encode())
    return Saved(file, earlier)


def _replaceable(file: Path, policy: "ExitPolicy | PolicyMenu", replace: bool) -> Earlier | None:
    """Earlier content of the file, after checking that this policy may replace it."""
    from offramp.policy import ExitPolicy

    earlier = Earlier.of(file)
    promises = not isinstance(policy, ExitPolicy) or policy.promise is not None
    if earlier is None or promises or replace or not earlier.may_promise:
        return earlier
    raise PlanError(
        f"{file} holds {earlier}, and the new policy comes without a promise. Nothing was "
        "written. Save the new one elsewhere with --out FILE, or give --replace."
    )


@contextmanager
def saying_what_stays(file: Path) -> Iterator[None]:
    """If no policy is found, add to the error what this file still holds."""
    try:
        yield
    except NoPolicyError as error:
        if (earlier := Earlier.of(file)) is None:
            raise
        raise NoPolicyError(
            f"{error}\n{file} was not changed; it holds {earlier}.",
            closest=error.closest,
            num_samples_needed=error.num_samples_needed,
            num_clusters_needed=error.num_clusters_needed,
        ) from error
