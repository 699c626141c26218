"""What is given out, counted anew from what an engine sees: instructions, its own answers, and lost nodes.

Shares no code with `state.ledger`. An engine holds cores and bandwidth from the start (or resume) of a job until
it has told that the job ended or is suspended, memory and GPUs until the end; a lost node holds nothing any more.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tandem.share import events as ev
from tandem.share.model import Job, Node, Placement, Share


@dataclass
class _Held:
    """What one job holds."""

    job: Job
    placement: Placement
    shares: list[Share]
    paused: bool = False
    pausing: bool = False
    resuming: bool = False


@dataclass
class Recount:
    """Give it every event that a machine is told and every instruction it gives, in order."""

    nodes: dict[str, Node] = field(default_factory=dict)
    jobs: dict[int, Job] = field(default_factory=dict)
    ends: Counter[int] = field(default_factory=Counter)
    attempt: dict[int, int] = field(default_factory=dict)
    held: dict[int, _Held] = field(default_factory=dict)
    starts: dict[int, float] = field(default_factory=dict)  # last start
    anew: set[str] = field(default_factory=set)  # nodes that were told to be others while jobs were there

    def told(self, event: ev.Event) -> None:
        """An event, before the machine steps on it."""
        match event:
            case ev.NodeJoined(node):
                self.nodes[node.id] = node
                if any(share.node == node.id for held in self.held.values() for share in held.shares):
                    self.anew.add(node.id)  # what is held there may be beyond it
                else:
                    self.anew.discard(node.id)
            case ev.NodeLost(name):
                for job in list(self.held):
                    self.held[job].shares = [share for share in self.held[job].shares if share.node != name]
                    if not self.held[job].shares:
                        del self.held[job]
            case ev.Submitted(job):
                self.jobs.setdefault(job.id, job)
            case ev.Ended(job, attempt) | ev.StartRefused(job, attempt):
                if self.attempt.get(job) == attempt:
                    self.held.pop(job, None)
            case ev.ResumeDone(job, attempt) | ev.ResumeRefused(job, attempt):
                if self.attempt.get(job) == attempt and job in self.held and self.held[job].resuming:
                    self.held[job].paused, self.held[job].resuming = isinstance(event, ev.ResumeRefused), False
            case ev.SuspendDone(job, attempt):
                if self.attempt.get(job) == attempt and job in self.held and self.held[job].pausing:
                    self.held[job].paused, self.held[job].pausing = True, False

    def did(self, now: float, instructions: Iterable[ev.Instruction]) -> None:
        """What the machine said after that."""
        for instruction in instructions:
            job = instruction.job
            match instruction:
                case ev.StartJob(_, attempt, placement):
                    assert job not in self.held, f"job {job} is started while it is still on its nodes"
                    assert attempt == self.attempt.get(job, 0) + 1, f"job {job}: attempt {attempt}"
                    assert not self.ends[job], f"job {job} is started after its end"
                    self._check_gang(self.jobs[job], placement)
                    self.attempt[job] = attempt
                    self.held[job] = _Held(self.jobs[job], placement, list(placement.shares))
                    self._check_given(placement.shares)
                    self.starts[job] = now
                case ev.SuspendJob():
                    assert not self.held[job].paused, f"job {job} is suspended twice"
                    self.held[job].pausing = True
                case ev.StopJob():
                    self.held[job].pausing = self.held[job].resuming = False
                case ev.ResumeJob(_, _, placement):
                    held = self.held[job]
                    assert held.paused, f"job {job} is resumed but not suspended"
                    before = [(s.node, s.need, s.gpus) for s in held.placement.shares]
                    assert [(s.node, s.need, s.gpus) for s in placement.shares] == before, "a resumed job stays"
                    had = [(s.node, core) for s in held.placement.shares for core in s.cores]
                    self.held[job] = _Held(self.jobs[job], placement, list(placement.shares), resuming=True)
                    self._check_given(placement.shares, had)
                case ev.JobEnded():
                    self.ends[job] += 1
                    assert self.ends[job] == 1, f"job {job} ends twice"
                    assert job not in self.held, f"job {job} has ended but is on its nodes"
        self.check()

    def check(self) -> None:
        """Nothing is given out twice, and no node gives more than it has."""
        for name in {share.node for held in self.held.values() for share in held.shares}:
            here = [(held, share) for held in self.held.values() for share in held.shares if share.node == name]
            self._check_node(self.nodes[name], here, anew=name in self.anew)

    def _check_given(self, shares: Sequence[Share], had: Sequence[tuple[str, int]] | None = None) -> None:
        """Of what a node is told to have now, what is given is there, whatever others hold beyond it.

        Who is resumed may get more than that, as far as it ``had`` that before.
        """
        for share in shares:
            node, need = self.nodes[share.node], share.need
            going = [s for h in self.held.values() if not h.paused for s in h.shares if s.node == node.id]
            mine = [s for s in shares if s.node == node.id]
            assert set(share.cores) <= set(node.cores) | {core for name, core in had or () if name == node.id}
            for what in ("cpu_milli", "membw_mbs", "nic_mbs"):
                most, own = getattr(node, what), sum(getattr(s.need, what) for s in mine)
                if getattr(need, what) and most is not None and not (what == "cpu_milli" and node.cores):
                    total = sum(getattr(s.need, what) for s in going)
                    assert total <= (most if had is None else max(most, own)), f"{what} of {node.id}"
            if had is None:
                here = [s for h in self.held.values() for s in h.shares if s.node == node.id]
                assert not need.mem_mib or sum(s.need.mem_mib for s in here) <= node.mem_mib
                assert set(share.gpus) <= {gpu.index for gpu in node.gpus}
                assert need.labels <= node.labels

    @staticmethod
    def _check_node(node: Node, here: list[tuple[_Held, Share]], *, anew: bool) -> None:
        going = [share for held, share in here if not held.paused]
        cores = Counter(core for s in going for core in s.cores)
        assert all(count == 1 for count in cores.values()), f"cores of {node.id}: {cores}"
        whole = {held.job.id for held, _ in here if held.placement.whole}
        assert not whole or len({held.job.id for held, _ in here}) == 1, (
            f"{node.id} was given whole, and then more of it"
        )
        gpus: Counter[int] = Counter()
        for _, s in here:
            assert len(s.gpus) == (s.need.gpus or (1 if s.need.gpu_milli else 0))
            assert len(set(s.gpus)) == len(s.gpus)
            for index in s.gpus:
                gpus[index] += s.need.gpu_milli or 1000
        assert all(count <= 1000 for count in gpus.values()), f"GPUs of {node.id}: {gpus}"
        if anew:
            return
        assert sum(s.need.cpu_milli for s in going) <= node.cpu_milli, f"CPU of {node.id}"
        assert sum(s.need.mem_mib for _, s in here) <= node.mem_mib, f"memory of {node.id}"
        if node.membw_mbs is not None:
            assert sum(s.need.membw_mbs for s in going) <= node.membw_mbs, f"memory bandwidth of {node.id}"
        if node.nic_mbs is not None:
            assert sum(s.need.nic_mbs for s in going) <= node.nic_mbs, f"network of {node.id}"
        assert cores.keys() <= set(node.cores)
        if node.cores:
            assert all(1000 * len(s.cores) == s.need.cpu_milli for s in going), "pinned to as many cores as asked for"
        assert gpus.keys() <= {gpu.index for gpu in node.gpus}
        assert all(s.need.labels <= node.labels for _, s in here)

    @staticmethod
    def _check_gang(job: Job, placement: Placement) -> None:
        shares = list(placement.shares)
        for part in job.parts:
            mine, shares = shares[: part.nodes], shares[part.nodes :]
            assert len(mine) == part.nodes, f"job {job.id} is started without all of its gang"
            assert all(share.need == part.need for share in mine)
            assert len({share.node for share in mine}) == part.nodes, "the nodes of a part are different ones"
        assert not shares, f"job {job.id} got more than it asked for"
