"""A service on a small model, in this process, with a port of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
from fv_serve.app import build_app
from fv_serve.limits import Limits
from fv_serve.making import Maker
from fv_serve.served import Served
from fv_serve.service import Service
from fv_serve.start import bound_to, server_for, working
from fv_serve.store import Store
from fv_serve.worker import Worker

from fastvideo_core import SamplingParam, VideoGenerator

SMALL: dict[str, Any] = {"height": 32, "width": 48, "num_frames": 5, "num_inference_steps": 2}
LONG = 900
"""Steps of a video that is still being made when a test ends."""


@dataclass
class Site:
    """A service, and a client for it."""

    service: Service
    client: httpx.Client
    url: str

    def create(self, **fields: Any) -> dict[str, Any]:
        answer = self.client.post("/v1/videos", json={"prompt": "cat", **fields})
        assert answer.status_code == 200, answer.text
        made: dict[str, Any] = answer.json()
        return made

    def look(self, video_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get(f"/v1/videos/{video_id}").json()
        return found

    def until(self, video_id: str, what: Callable[[dict[str, Any]], bool], seconds: float = 60) -> dict[str, Any]:
        """The video, as soon as something is so."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if what(video := self.look(video_id)):
                return video
            time.sleep(0.01)
        raise AssertionError(f"still {video}")

    def ended(self, video_id: str) -> dict[str, Any]:
        return self.until(video_id, lambda video: video["status"] in ("completed", "failed"))


def served(generator: VideoGenerator, **limits: Any) -> Served:
    defaults = replace(SamplingParam(), **SMALL)
    choices, check = generator.choices(), generator.check_choices
    return Served("tiny", generator.info, defaults, None, None, choices, check, replace(Limits(), **limits))


@contextmanager
def site(
    generator: VideoGenerator, folder: Path, key: str | None = None, works: bool = True, **limits: Any
) -> Iterator[Site]:
    """A service as long as the context lasts; the generator is left open.

    Args:
        works: whether videos are made; otherwise they wait.
    """
    folder.mkdir(parents=True, exist_ok=True)
    store = Store(folder / "jobs.sqlite")
    service = Service(served(generator, **limits), store, folder)
    worker = Worker(service, _Maker(lambda: generator, folder, service.served.defaults, None, None))
    app = build_app(service, key, worker.is_alive if works else lambda: True, working(worker) if works else None)
    server = server_for(app)
    with bound_to("127.0.0.1", 0) as bound:
        thread = threading.Thread(target=server.run, args=([bound],), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        try:
            with httpx.Client(base_url=url, timeout=30) as client:
                yield Site(service, client, url)
        finally:
            service.stopping.set()
            server.should_exit = True
            thread.join(30)
            store.close()


class _Maker(Maker):
    """One that leaves the generator open for the next test."""

    def close(self) -> None:
        self.generator.use_attention(None)
