"""The jobs of a group in one process: each begins and ends as a run of its own, and all are trained together."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path

from mlefw.command.job import print_summary
from mlefw.command.outermost import print_error, take_over_signals
from mlefw.command.train import begin, measure, recorded_failure
from mlefw.configuration.read import located
from mlefw.configuration.settings import Node
from mlefw.errors import MlefwError, Stopped
from mlefw.run import conclude, fitting
from mlefw.run.directory import locked, summary_of
from mlefw.run.prepare import prepare
from mlefw.sweep.population import signature
from mlefw.sweep.population.final_evaluation import evaluate_members
from mlefw.sweep.population.fit import TrainAloneError, fit
from mlefw.sweep.population.member import Member
from mlefw.system import shared_work, warning
from mlefw.system.atomic import write_json
from mlefw.system.own_folder import replace_links
from mlefw.system.random_state import RandomStream
from mlefw.system.signals import handled


@dataclass
class Entry:
    """A job of a group.

    Attributes:
        index: of the job in its sweep.
        config: its settings, but for the run directory.
        run_dir: its run directory.
        log: file of what it prints.
        code: its exit code; None as long as there is none, and for a job that has to be run alone.
        seconds: what it has taken so far, without the training of the group.
        warnings: those collected so far.
    """

    index: int
    config: Node
    run_dir: Path
    log: Path
    code: int | None = None
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()


def run(entries: Sequence[Entry], results: Path, is_asked: bool = False, leaves: bool = False) -> int:
    """Run the jobs; 0, or the exit code of an error that ended all. The file `results` gets the outcome of each job.

    Args:
        entries: the jobs.
        results: a JSON file.
        is_asked: whether jobs are to be trained together even where that is not known to be faster.
        leaves: whether a job whose training ends before that of others is concluded at once, and not with all others
            at the end, which takes less time.
    """
    try:
        with handled(), shared_work.shared_with_forks(), ExitStack() as held:
            signature.check(prepare(located(entries[0].config, entries[0].run_dir), None), is_asked)
            take_over_signals()
            group = _Group(entries, results, held)
            try:
                group.run(leaves)
            finally:
                group.write_results()
    except BaseException as error:  # noqa: BLE001 - the outermost frame of a process
        return print_error(error)
    return 0


def read_results(results: Path) -> dict[int, tuple[int, float]]:
    """Exit code and seconds of each job, by index; without the jobs of which nothing is known."""
    try:
        content = json.loads(results.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {int(index): (code, seconds) for index, (code, seconds) in content.items()}


class _Group:
    """The jobs of a group in this process.

    Args:
        entries: the jobs.
        results: a JSON file for the outcome of each.
        held: holds their run directories locked.
    """

    def __init__(self, entries: Sequence[Entry], results: Path, held: ExitStack) -> None:
        self.entries, self.results, self.held = entries, results, held
        self.members: list[tuple[Entry, Member]] = []
        self.locks: dict[int, ExitStack] = {}
        self.started = 0.0

    def run(self, leaves: bool) -> None:
        """Begin, train and conclude all jobs; arguments as of `run`.

        Raises:
            Stopped: a signal has come.
        """
        try:
            for entry in self.entries:
                with _logging_to(entry):
                    self.members.append((entry, self._begin(entry)))
            _separate(self.members)
            self.started = time.monotonic()
            fit([member for _, member in self.members if member.error is None], self._leave if leaves else None)
            self._conclude([pair for pair in self.members if pair[0].code is None])
        except Stopped as error:
            for entry, member in self.members:
                if entry.code is None and summary_of(entry.run_dir).get("status") != "finished":
                    with suppress(Stopped), _logging_to(entry), recorded_failure(member.begun):
                        raise error from None
            raise

    def write_results(self) -> None:
        """Write the outcome of each job so far."""
        known = [entry for entry in self.entries if entry.code is not None]
        write_json(self.results, {str(entry.index): [entry.code, entry.seconds] for entry in known})

    def _begin(self, entry: Entry) -> Member:
        begun = begin(located(entry.config, entry.run_dir), entry.run_dir)
        self.locks[entry.index] = self.held.enter_context(ExitStack())
        self.locks[entry.index].enter_context(locked(begun.run_dir))
        with recorded_failure(begun):
            return Member.of(begun, *measure(begun))

    def _leave(self, ended: Sequence[Member]) -> None:
        """Conclude the jobs whose training has ended, and let go of their directories, while the others go on."""
        pairs = [(entry, member) for entry, member in self.members if any(member is one for one in ended)]
        self._conclude(pairs)
        for entry, _ in pairs:
            self.locks[entry.index].close()
        self.write_results()

    def _conclude(self, pairs: Sequence[tuple[Entry, Member]]) -> None:
        share = (time.monotonic() - self.started) / max(1, len(self.members))
        known = evaluate_members([member for _, member in pairs])
        for (entry, member), seen in zip(pairs, known, strict=True):
            if isinstance(member.error, TrainAloneError):
                continue
            with _logging_to(entry):
                _end(entry, member, share, seen)
            entry.code = entry.code or 0


def _separate(members: Sequence[tuple[Entry, Member]]) -> None:
    """Leave out the members that cannot be trained together with the first one.

    Raises:
        UnsuitableError: no other member can.
    """
    alike = signature.alike([member.begun.prepared for _, member in members], members[0][1].max_epochs)
    if sum(alike) < 2 <= len(members):
        raise signature.UnsuitableError("rows of their own, of other numbers or in all too many")
    for (_, member), stays in zip(members, alike, strict=True):
        if not stays:
            member.error = TrainAloneError("its rows take other numbers of steps or learn other shapes")


def _end(entry: Entry, member: Member, share: float, seen: conclude.FinalState | None) -> None:
    begun, prepared = member.begun, member.begun.prepared
    with recorded_failure(begun):
        if member.error is not None:
            raise member.error
        rows_per_s = member.current_epoch * prepared.data.train.num_rows / max(share, 1e-9)
        done = fitting.finished(member, member.watch, rows_per_s, share)
        started = time.monotonic() - entry.seconds - share
        with RandomStream(begun.config.seed, "conclusion"):
            summary = conclude.conclude(
                begun.config, begun.run_dir, prepared, member.yardstick, member.baseline, done, started, seen
            )
    print_summary(summary, begun.run_dir)
    member.finalize()


@contextmanager
def _logging_to(entry: Entry) -> Iterator[None]:
    """Take what the block prints, warns of and raises for the job's, and count its time."""
    clock = time.monotonic()
    with replace_links(entry.log).open("a", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
        warning.clear()
        for message in entry.warnings:
            warning.collect(message)
        try:
            yield
        except (MlefwError, OSError) as error:
            entry.code = print_error(error)
        except Stopped as error:
            entry.code = print_error(error)
            raise
        entry.warnings = tuple(warning.collected())
    entry.seconds += time.monotonic() - clock
