"""Who is next: callers take turns, one picture each."""

from __future__ import annotations

from collections import OrderedDict, deque

from flux_api.jobs import ImageTask, Job


class FairQueue:
    """Pictures that wait, by caller. Not thread-safe: the manager's lock guards it."""

    def __init__(self) -> None:
        self._queues: OrderedDict[str, deque[ImageTask]] = OrderedDict()

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
            if queue:
                return queue[0]
            del self._queues[caller]
        return None

    def take(self, task: ImageTask) -> None:
        """Remove ``task``, the head; its caller goes to the end of the round."""
        self._queues[task.job.caller].popleft()
        self._queues.move_to_end(task.job.caller)

    def drop(self, job: Job) -> None:
        """Forget the pictures of ``job``."""
        queue = self._queues.get(job.caller, ())
        kept = deque(task for task in queue if task.job is not job)
        if kept:
            self._queues[job.caller] = kept
        else:
            self._queues.pop(job.caller, None)

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
        queues = list(self._queues.values())
        for turn in range(max(map(len, queues), default=0)):
            for queue in queues:
                if turn < len(queue) and queue[turn].job.state == "queued":
                    found.setdefault(queue[turn].job.id, queue[turn].job)
        return list(found.values())
