"""The worker of fv-serve with something else than a generator of its own process to make its videos."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fv_serve.job import Asked, Job, Status, new_id
from fv_serve.making import Made
from fv_serve.running import Running
from fv_serve.service import Service
from fv_serve.store import Store
from fv_serve.worker import Worker

from fastvideo_core import VideoGenerator
from fastvideo_core.errors import ModelError
from tests.support.serving import served


@pytest.fixture
def service(wan_folder: Path, tmp_path: Path) -> Iterator[Service]:
    with VideoGenerator.from_pretrained(wan_folder, device="cpu") as generator:
        store = Store(tmp_path / "jobs.sqlite")
        yield Service(served(generator), store, tmp_path)
        store.close()


class Elsewhere:
    """Is not there at first, and gone in the middle of each job the first time; the client of one deletes it then."""

    def __init__(self, service: Service, deleted: str, last: str) -> None:
        self._service, self._deleted, self._last = service, deleted, last
        self.asked, self.begun, self.closed = 0, list[str](), False

    def ready(self) -> bool:
        self.asked += 1
        if self.asked == 1:
            raise ModelError("the model cannot be loaded")
        return self.asked > 2

    def make(self, job: Job, run: Running) -> Made:
        self.begun.append(job.id)
        if self.begun.count(job.id) == 1:
            if job.id == self._deleted:
                self._service.delete(job.id)
                assert run.cancelled
            return Made(again=True)
        if job.id == self._last:
            self._service.stopping.set()
        self._service.path(job.id, ".mp4").touch()
        return Made()

    def close(self) -> None:
        self.closed = True


def test_a_job_whose_maker_is_gone_waits_again_in_its_place_unless_it_was_deleted(service: Service) -> None:
    first, deleted, last = (service.store.add(Job(new_id(), Asked("cat")), 9).id for _ in range(3))
    image = service.path(deleted, ".input.png")
    image.touch()
    maker = Elsewhere(service, deleted, last)
    worker = Worker(service, maker)
    worker.start()
    worker.join(30)
    assert maker.begun == [first, first, deleted, last, last]
    assert [(job.id, job.status) for job in service.store.ended()] == [
        (first, Status.COMPLETED),
        (last, Status.COMPLETED),
    ]
    assert not image.exists(), "nothing is left of a job that was deleted"
    assert service.running == {}
    assert maker.closed
