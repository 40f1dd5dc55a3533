"""Who is next: callers take turns, one picture each."""

from __future__ import annotations

from collections import OrderedDict, deque

from flux_api.jobs import ImageTask, Job


class FairQueue:
    """Pictures that wait, by caller. A newcomer's first picture comes before those of
    callers who had a turn already, but not two newcomers' in a row while such wait, so
    that nobody is kept out. Not thread-safe: the manager's lock guards it."""

    def __init__(self) -> None:
        self._queues: OrderedDict[str, deque[ImageTask]] = OrderedDict()
        self._served: set[str] = set()
        self._newcomer_was_last = False

    def __len__(self) -> int:
        """How many pictures wait."""
        return sum(map(len, self._queues.values()))

    def add(self, job: Job) -> None:
        """Queue every picture of ``job``, behind its caller's others."""
        queue = self._queues.setdefault(job.caller, deque())
        queue.extend(
            ImageTask(job, index, job.request)
            for index in range(job.request.num_images_per_prompt)
        )

    def head(self) -> ImageTask | None:
        """The next picture in turn; those of ended jobs are dropped on the way."""
        for caller, queue in list(self._queues.items()):
            while queue and queue[0].job.outcome is not None:
                queue.popleft()
            if not queue:
                self._forget(caller)
        order = self._order()
        return self._queues[order[0]][0] if order else None

    def take(self, task: ImageTask) -> None:
        """Remove ``task``, the head; its caller goes to the end of the round."""
        caller = task.job.caller
        self._newcomer_was_last = caller not in self._served
        self._served.add(caller)
        self._queues[caller].popleft()
        self._queues.move_to_end(caller)

    def drop(self, job: Job) -> None:
        """Forget the pictures of ``job``."""
        queue = self._queues.get(job.caller, ())
        kept = deque(task for task in queue if task.job is not job)
        if kept:
            self._queues[job.caller] = kept
        else:
            self._forget(job.caller)

    def alive(self) -> set[str]:
        """The ids of the jobs that have not ended and of which a picture waits."""
        return {
            task.job.id
            for queue in self._queues.values()
            for task in queue
            if task.job.outcome is None
        }

    def jobs(self) -> list[Job]:
        """The jobs of which no picture has started, in the order in which they will."""
        found: dict[str, Job] = {}
        queues = [list(self._queues[caller]) for caller in self._order()]
        for turn in range(max(map(len, queues), default=0)):
            for queue in queues:
                if turn < len(queue) and queue[turn].job.state == "queued":
                    found.setdefault(queue[turn].job.id, queue[turn].job)
        return list(found.values())

    def _order(self) -> list[str]:
        """The callers in the order of their next turns."""
        newcomers = [name for name in self._queues if name not in self._served]
        others = [name for name in self._queues if name in self._served]
        if not newcomers or not others:
            return newcomers or others
        if self._newcomer_was_last:
            return [others[0], *newcomers, *others[1:]]
        return [*newcomers, *others]

    def _forget(self, caller: str) -> None:
        self._queues.pop(caller, None)
        self._served.discard(caller)
