"""Start a service, in the order in which things can go wrong: address, folder, settings, jobs, model."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import uvicorn
from fastapi import FastAPI

from fastvideo_core import Choices, SamplingParam, check_sampling
from fastvideo_core.errors import InputError, OutputError
from fv_serve.app import build_app
from fv_serve.guard import LOOPBACK
from fv_serve.limits import Limits
from fv_serve.making import Maker
from fv_serve.served import Served, name_for_clients
from fv_serve.service import Service
from fv_serve.store import Store
from fv_serve.worker import Worker

if TYPE_CHECKING:
    from fastvideo_core import VideoGenerator

KEY = "FASTVIDEO_API_KEY"
_STOP_SECONDS = 60.0
_SHORTEST_KEY = 8


@dataclass(frozen=True)
class Settings:
    """What `fv serve` was asked for.

    Attributes:
        again: whether a video that was being made when the server was killed is made again.
        sampling: defaults for requests. loading: arguments of `VideoGenerator.from_pretrained`.
    """

    model: str
    host: str
    port: int
    folder: Path
    attention_backend: str | None
    cache: str | None
    limits: Limits
    again: bool
    sampling: dict[str, Any]
    loading: dict[str, Any]

    def defaults(self) -> SamplingParam:
        """The sampling parameters of a request that gives none; raises ModelError, InputError."""
        return check_sampling(self.model, self.sampling)[0]


def serve(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM; what is being made then waits for the next start.

    Raises:
        InputError: the address needs a key, a setting does not fit. OutputError: the folder or its jobs cannot be used.
        ModelError, BackendError, CacheError: as `VideoGenerator`.
    """
    from fastvideo_core import check_names

    key = checked_key(settings.host)
    defaults = settings.defaults()
    check_names(settings.model, attention_backend=settings.attention_backend, cache=settings.cache)
    with ExitStack() as stack:
        bound = stack.enter_context(bound_to(settings.host, settings.port))
        stack.enter_context(alone(settings.folder))
        store = Store(settings.folder / "jobs.sqlite")
        stack.callback(store.close)
        maker = maker_for(settings)
        generator = maker.generator
        generator.check_choices(cache=settings.cache)
        served = Served(
            name_for_clients(settings.model),
            generator.info,
            defaults,
            settings.attention_backend,
            settings.cache,
            choices_of(generator),
            generator.check_choices,
            settings.limits,
        )
        service = Service(served, store, settings.folder)
        service.resume(settings.again)
        worker = Worker(service, maker)
        app = build_app(service, key, worker.is_alive, working(worker))
        click.echo(f"{served.model} at {_address(settings.host, bound)}; videos in {settings.folder}; Ctrl-C stops")
        sys.stdout.flush()
        with suppress(KeyboardInterrupt):
            server_for(app).run(sockets=[bound])


def server_for(app: FastAPI) -> uvicorn.Server:
    """The server, with its limits on time and connections."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=5,
        limit_concurrency=1000,
        http="h11",  # another one, which uvicorn takes where it is installed, has no limit on the size of headers
        h11_max_incomplete_event_size=64 * 1024,
        lifespan="on",
    )
    return uvicorn.Server(config)


def working(*workers: Worker) -> Any:
    """The workers' lives as that of the application."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        for worker in workers:
            worker.start()
        yield
        until = time.monotonic() + _STOP_SECONDS
        for worker in workers:
            worker.stop()
        for worker in workers:
            worker.join(max(0.0, until - time.monotonic()))

    return lifespan


def maker_for(settings: Settings) -> Maker:
    """What makes the videos, with the model loaded; raises as `VideoGenerator`."""
    from fastvideo_core import VideoGenerator

    def opened() -> VideoGenerator:
        generator = VideoGenerator.from_pretrained(
            settings.model, attention_backend=settings.attention_backend, **settings.loading
        )
        generator.progress = False
        return generator

    return Maker(opened, settings.folder, settings.defaults(), settings.attention_backend, settings.cache)


def choices_of(generator: VideoGenerator) -> Choices:
    """What a request may choose; of several processes the backend stays."""
    choices = generator.choices()
    return replace(choices, attention_backends=()) if generator.is_shared else choices


def checked_key(host: str) -> str | None:
    """The key that clients must send, from the environment.

    Raises:
        InputError: others than this machine could come without one; or it is too short.
    """
    key = os.environ.get(KEY, "").strip() or None
    if key is not None and len(key) < _SHORTEST_KEY:
        raise InputError(f"{KEY} has {len(key)} letters, it must have {_SHORTEST_KEY} or more")
    if key is None and not _is_loopback(host):
        raise InputError(
            f"--host {host} lets other machines in: set {KEY} to a key that they must send, or leave out --host to "
            "serve this machine alone"
        )
    return key


def _is_loopback(host: str) -> bool:
    if host in LOOPBACK:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def bound_to(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens there; raises InputError: the address is taken, or none of this machine."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        bound = socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, UnicodeError) as error:
        raise InputError(f"--host {host} --port {port} cannot be had: {error}; choose another --port") from error
    with bound:
        # asyncio does so for sockets that say they are TCP, which these do not: each answer would wait 40 ms
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield bound


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Raises OutputError: the folder cannot be written to, or another service has it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "serve.lock").open("w")
    except OSError as error:
        raise OutputError(f"{str(folder)!r} cannot be written to: {error}; choose another --output") from error
    with lock:
        if sys.platform != "win32":
            import fcntl

            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                message = f"another fv serve has the folder {str(folder)!r}; stop it, or choose another --output"
                raise OutputError(message) from error
            except OSError:
                pass  # a file system without locks
        yield


def _address(host: str, bound: socket.socket) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{bound.getsockname()[1]}"
