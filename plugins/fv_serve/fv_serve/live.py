"""Waiting for a job, and telling a page what goes on."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from starlette.concurrency import run_in_threadpool

from fv_serve.job import ENDED, Job
from fv_serve.problems import ApiError
from fv_serve.service import Service

_LOOK = 0.1
_TELL = 0.25
_SIGN_OF_LIFE = 10.0

Gone = Callable[[], Awaitable[bool]]


async def ended(service: Service, job: Job, gone: Gone) -> Job:
    """The job, when it has ended; it is deleted where its client goes away meanwhile.

    Raises:
        ApiError: somebody else deleted it, or the server is stopping, which makes it after the next start.
    """
    while True:
        if await gone():
            await run_in_threadpool(service.delete, job.id)
            raise ApiError(499, "the client has gone away")
        job = await run_in_threadpool(service.get, job.id)
        if job.status in ENDED:
            return job
        if service.stopping.is_set():
            raise ApiError(503, f"the server is stopping; look for {job.id} after its start", None, "stopping")
        await asyncio.sleep(_LOOK)


async def events(service: Service, gone: Gone) -> AsyncIterator[bytes]:
    """Server-sent events: the jobs that wait, run and ended lately, whenever any of that has changed."""
    last, told = "", 0.0
    while not service.stopping.is_set() and not await gone():
        jobs = json.dumps(await run_in_threadpool(service.snapshot))
        if jobs != last:
            last, told = jobs, time.monotonic()
            yield f"event: jobs\ndata: {jobs}\n\n".encode("ascii")
        elif time.monotonic() > told + _SIGN_OF_LIFE:
            told = time.monotonic()
            yield b": still here\n\n"
        await asyncio.sleep(_TELL)
