"""Ray Serve: the application of `fv serve`, with generators on the machines of a Ray cluster.

Run: python examples/serve_ray.py [--generators 2] [--output FOLDER]; it needs fv-ray[serve].

One replica has HTTP, the queue and the jobs' database, which no other process opens. It stays on the head node, so its
successor finds the database where it was. The generators are actors that it owns: Ray ends them with it, so nobody goes
on with a video that the successor has made again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import ray
from fastapi import FastAPI
from fv_ray.cluster import connect, machines, passed_on
from fv_serve.app import build_app
from fv_serve.job import Job
from fv_serve.limits import Limits
from fv_serve.making import Made
from fv_serve.problems import ApiError
from fv_serve.running import Running
from fv_serve.served import Served, name_for_clients
from fv_serve.service import Service
from fv_serve.start import Settings, alone, bound_to, checked_key, choices_of, maker_for, working
from fv_serve.store import Store
from fv_serve.worker import Worker
from ray import serve
from ray.exceptions import RayError, RayTaskError

from fastvideo_core import SamplingParam, check_names, only_given, sampling_options
from fastvideo_core.errors import FastVideoError

NAME = "fastvideo"
TRIES = 2
"""How often a video is begun whose generator dies each time."""
_HEAD = "node:__internal_head__"
_LOOK = 0.1
_ANSWERS = 10.0

log = logging.getLogger("ray.serve")


class FastVideoGenerator:
    """An actor with the model. While it makes a video, other threads tell how far it is, and end it."""

    def __init__(self, settings: Settings) -> None:
        self._maker = maker_for(settings)
        self._runs: dict[str, Running] = {}

    def about(self) -> tuple[Any, Any]:
        """What the service tells of the model, and what can be chosen where this runs."""
        return self._maker.generator.info, choices_of(self._maker.generator)

    def refusal(self, chosen: dict[str, str | None]) -> FastVideoError | None:
        """Why a video cannot be made with such a backend or policy."""
        try:
            self._maker.generator.check_choices(**chosen)
        except FastVideoError as error:
            return error
        return None

    def ready(self) -> bool:
        return self._maker.ready()

    def make(self, job: Job) -> Made:
        try:
            return self._maker.make(job, self._run(job.id))
        finally:
            del self._runs[job.id]

    def steps(self, job_id: str) -> tuple[int, int]:
        run = self._runs.get(job_id)
        return run.steps if run else (0, 0)

    def cancel(self, job_id: str) -> None:
        self._run(job_id).cancel()

    def _run(self, job_id: str) -> Running:
        return self._runs.setdefault(job_id, Running(job_id))


@dataclass
class Steps:
    """How far a generator is with a job, as it was told last."""

    generator: Any
    job_id: str
    steps_done: int = 0
    num_steps: int = 0

    def look(self) -> None:
        self.steps_done, self.num_steps = ray.get(self.generator.steps.remote(self.job_id))

    def cancel(self) -> None:
        self.generator.cancel.remote(self.job_id)


class Remote:
    """A generator on another machine, in the replica's eyes; one that died is replaced.

    Args:
        start: starts the actor.
        again: whether a job whose generator died is begun again, up to TRIES times in all; else it fails.
        died: of all generators: how often one died, by the id of its job.
    """

    def __init__(self, start: Callable[[], Any], again: bool, died: Counter[str]) -> None:
        self._start, self._again, self._died = start, again, died
        self._new()

    def _new(self) -> None:
        self.actor = self._start()
        self.there = False
        self._asked: Any = None

    def ready(self) -> bool:
        self._asked = self._asked or self.actor.ready.remote()
        if not ray.wait([self._asked], timeout=1)[0]:
            return False
        asked, self._asked = self._asked, None
        try:
            self.there = ray.get(asked)
        except RayTaskError:
            raise  # of the generator itself
        except RayError as error:
            log.error("a generator is gone, another one is started: %s", error)
            time.sleep(1)
            self._new()
        return self.there

    def make(self, job: Job, run: Running) -> Made:
        steps = Steps(self.actor, job.id)
        try:
            run.follow(steps)
            made = self.actor.make.remote(job)
            while not ray.wait([made], timeout=_LOOK)[0]:
                steps.look()
            result: Made = ray.get(made)
        except RayTaskError as error:
            log.exception("%s", job.id)
            result = Made(("failed", str(error.cause)))
        except RayError:
            return self._lost(job)
        self._died.pop(job.id, None)
        return result

    def _lost(self, job: Job) -> Made:
        self.close()  # it may only be out of reach: it must not go on
        self._died[job.id] += 1
        if self._again and self._died[job.id] < TRIES:
            return Made(again=True)
        times = self._died.pop(job.id)
        return Made(("interrupted", f"the process that made the video died{f' {times} times' * (times > 1)}"))

    def close(self) -> None:
        self.there = False
        ray.kill(self.actor)


def first_told(remotes: list[Remote]) -> tuple[Any, Any]:
    """What the first generator that is there says of the model; raises what loading it raised."""
    told, _ = ray.wait([remote.actor.about.remote() for remote in remotes])
    about: tuple[Any, Any] = ray.get(told[0])
    return about


def check_with(remotes: list[Remote]) -> Callable[..., None]:
    """What asks a generator whether a video can be made with a choice."""

    def check(**chosen: str | None) -> None:
        for remote in sorted(remotes, key=lambda remote: not remote.there) if any(chosen.values()) else []:
            try:
                refused = ray.get(remote.actor.refusal.remote(chosen), timeout=_ANSWERS)
            except RayError:
                continue
            if refused is not None:
                raise refused
            return
        if any(chosen.values()):
            raise ApiError(503, "no generator is there just now; try again later", None, "no_generator")

    return check


def build(
    settings: Settings, defaults: SamplingParam, generators: int, options: dict[str, Any], key: str | None
) -> FastAPI:
    """The application, in its replica. The folder is locked for as long as that lives."""
    held = ExitStack()
    held.enter_context(alone(settings.folder))
    store = Store(settings.folder / "jobs.sqlite")
    actor, died = ray.remote(FastVideoGenerator), Counter[str]()

    def start() -> Any:
        return actor.options(max_concurrency=8, **options).remote(settings)

    remotes = [Remote(start, settings.again, died) for _ in range(generators)]
    info, choices = first_told(remotes)
    served = Served(
        name_for_clients(settings.model), info, defaults, settings.attention_backend, settings.cache,
        choices, check_with(remotes), settings.limits,
    )  # fmt: skip
    service = Service(served, store, settings.folder)
    service.resume(settings.again)
    workers = [Worker(service, remote) for remote in remotes]
    app = build_app(service, key, lambda: any(remote.there for remote in remotes), working(*workers))
    app.state.held = held
    return app


def check(settings: Settings) -> None:
    """Refuse what is wrong whichever cluster it is, before Ray, which would tell it in several tracebacks, is started.

    Raises:
        InputError: the host needs a key, a setting does not fit. OutputError: the folder cannot be used, or is in use.
        ModelError, BackendError, CacheError: the model, or a name, is unknown.
    """
    checked_key(settings.host)
    settings.defaults()
    check_names(settings.model, attention_backend=settings.attention_backend, cache=settings.cache)
    with alone(settings.folder):
        pass


def check_port(settings: Settings) -> None:
    """Raises InputError: the address is taken. Another machine's is not looked at, nor one where Ray Serve runs."""
    here = ray.get_runtime_context().get_node_id()
    on_head = any(node["NodeID"] == here and _HEAD in node["Resources"] for node in ray.nodes())
    if on_head and not serve.status().proxies:
        with bound_to(settings.host, settings.port):
            pass


def deploy(settings: Settings, generators: int, num_gpus: int) -> None:
    """Have the application answer at the host and port of the settings, on the cluster that this process is in.

    Args:
        num_gpus: of each generator, on one machine; 0: a CPU slot.

    Raises:
        InputError: the host needs a key, a setting does not fit. ModelError: the model is unknown.
        RuntimeError: the application cannot be started; Ray's logs say why.
    """
    key, defaults = checked_key(settings.host), settings.defaults()
    settings = replace(settings, folder=settings.folder.absolute())
    options = {"num_gpus": num_gpus, "num_cpus": 0 if num_gpus else 1, **passed_on()}

    def application() -> FastAPI:
        # in a thread: Ray warns of waiting in the replica's own, where nothing else is to be done yet
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(build, settings, defaults, generators, options, key).result()

    quiet = {"log_level": "WARNING", "enable_access_log": False}
    serve.start(http_options={"host": settings.host, "port": settings.port}, logging_config=quiet)
    deployment = serve.deployment(
        name=NAME,
        num_replicas=1,
        max_ongoing_requests=1000,
        graceful_shutdown_timeout_s=10,
        health_check_period_s=1,
        logging_config=quiet,
        ray_actor_options={"num_cpus": 0, "resources": {_HEAD: 0.001}, **passed_on()},
    )
    serve.run(deployment(serve.ingress(application)()).bind(), name=NAME, route_prefix="/")


@click.command()
@click.option("--model", default="shapes", show_default=True, help="Preset, folder that every machine sees, or hub id.")
@click.option("--generators", default=2, show_default=True, type=click.IntRange(1), help="Videos at a time.")
@click.option("--num-gpus", type=click.IntRange(0), help="Of each. Default: 1 where the cluster has GPUs, else 0.")
@click.option("--output", default="served", show_default=True, help="A folder that every machine sees.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Any but this machine needs FASTVIDEO_API_KEY.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535))
@click.option("--attention-backend", metavar="NAME", help="NAME or NAME@VALUE, unless a request gives one.")
@click.option("--cache", metavar="POLICY", help="Such as TEACACHE@0.08, unless a request gives one.")
@click.option("--interrupted", type=click.Choice(["again", "fail"]), default="again", show_default=True)
@click.option("--address", help="As for fv batch. Default: RAY_ADDRESS, else a cluster that is here, else a new one.")
@sampling_options
def main(
    model: str,
    generators: int,
    num_gpus: int | None,
    output: str,
    host: str,
    port: int,
    attention_backend: str | None,
    cache: str | None,
    interrupted: str,
    address: str | None,
    **sampling: Any,
) -> None:
    """Serve until Ctrl-C; what is being made then waits for the next start."""
    again, given = interrupted == "again", only_given(sampling)
    settings = Settings(model, host, port, Path(output), attention_backend, cache, Limits(), again, given, {})
    try:
        check(settings)
        connect(address)
        check_port(settings)
    except FastVideoError as error:
        raise click.ClickException(str(error)) from error
    if num_gpus is None:
        num_gpus = int(any(machine.get("GPU", 0) for machine in machines()))
    loading = {"device": "cuda", "num_gpus": num_gpus} if num_gpus else {"device": "cpu"}
    deploy(replace(settings, loading=loading), generators, num_gpus)
    click.echo(f"{model} by {generators} generators at http://{host}:{port}; videos in {output}; Ctrl-C stops")
    with suppress(KeyboardInterrupt):
        threading.Event().wait()
    serve.delete(NAME)


if __name__ == "__main__":
    main()
