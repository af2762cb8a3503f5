"""`fv serve` as its clients see it: OpenAI's own package, curl, and those who send nonsense."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import random
import re
import socket
import sqlite3
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import openai
import pytest
from click.testing import CliRunner
from fv_serve.app import build_app
from fv_serve.job import Asked, Job, Status, new_id
from fv_serve.service import Service
from fv_serve.start import bound_to
from fv_serve.store import Store
from PIL import Image

from fastvideo_core import VideoGenerator
from fastvideo_core.app import output
from fastvideo_core.cli import fv
from fastvideo_core.errors import OutputError
from tests.support.models import build_wan_image_pipeline
from tests.support.serving import LONG, SMALL, Site, served, site
from tests.test_disk import room_for

pytestmark = pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")  # the client's, of OpenAI's own


@pytest.fixture(scope="module")
def generator(wan_folder: Path) -> Iterator[VideoGenerator]:
    with VideoGenerator.from_pretrained(wan_folder, device="cpu") as shared:
        shared.progress = False
        yield shared


@pytest.fixture(scope="module")
def here(generator: VideoGenerator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(generator, tmp_path_factory.mktemp("served")) as made:
        yield made


@pytest.fixture(scope="module")
def waiting(generator: VideoGenerator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One that makes no video."""
    with site(generator, tmp_path_factory.mktemp("waiting"), works=False, body_bytes=100_000, body_seconds=0.3) as made:
        yield made


def test_openai_s_own_client_works_as_it_is(here: Site, generator: VideoGenerator, tmp_path: Path) -> None:
    with openai.OpenAI(base_url=f"{here.url}/v1", api_key="unused", max_retries=0) as client:
        extra = {"num_inference_steps": 3, "seed": 7, "size": "48x32", "seconds": "0.5"}
        video = client.videos.create_and_poll(prompt="cat dog", model="tiny", extra_body=extra, poll_interval_ms=50)
        assert (video.status, video.progress, video.error, video.prompt) == ("completed", 100, None, "cat dog")
        assert (video.size, video.seconds, video.model) == ("48x32", "0.5625", "tiny"), (
            "9 frames are nearest to half a second"
        )
        assert video.completed_at is not None
        assert video.expires_at is not None
        assert video.expires_at - video.completed_at == 24 * 3600
        client.videos.download_content(video.id).write_to_file(tmp_path / "x.mp4")
        with av.open(str(tmp_path / "x.mp4")) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        expected = generator.generate_video(
            "cat dog", **{**SMALL, "num_frames": 9, "num_inference_steps": 3}, seed=7, save_video=False
        ).frames
        assert np.abs(np.stack(frames).astype(np.float32) / 255 - expected).mean() < 0.05
        for variant, kind, size in (("thumbnail", "WEBP", (48, 32)), ("spritesheet", "PNG", (204, 104))):
            content = client.videos.download_content(video.id, variant=variant).read()
            image = Image.open(io.BytesIO(content))
            assert (image.format, image.size) == (kind, size)
        other = client.videos.create(prompt="dog")
        assert [one.id for one in client.videos.list(limit=1)][:2] == [other.id, video.id], (
            "it goes on to the next page"
        )
        here.ended(other.id)
        assert client.videos.list(order="asc", limit=1).data[0].id == video.id
        deleted = client.videos.delete(video.id)
        assert (deleted.id, deleted.deleted, deleted.object) == (video.id, True, "video.deleted")
        with pytest.raises(openai.NotFoundError, match="there is no video"):
            client.videos.retrieve(video.id)
        assert not list(here.service.folder.glob(f"{video.id}*"))
        with pytest.raises(openai.BadRequestError, match="size must be WIDTHxHEIGHT") as wrong:
            client.videos.create(prompt="cat", size="huge")
        assert (wrong.value.param, wrong.value.type) == ("size", "invalid_request_error")
        assert [one.id for one in client.models.list()] == ["tiny"]


def test_the_receipt_and_the_metrics_say_what_ran(here: Site) -> None:
    video = here.create(
        cache="TAYLORSEER@2:warm_up=1", attention_backend="NEIGHBORHOOD@frames=1", num_inference_steps=4
    )
    assert here.ended(video["id"])["status"] == "completed"
    receipt = here.client.get(f"/v1/videos/{video['id']}/receipt").json()
    assert (receipt["model"], receipt["cache"]["policy"], receipt["steps_skipped"] != {}) == (
        "tiny",
        "TAYLORSEER",
        True,
    )
    assert receipt["attention"]["SELF"]["backend"] == "NEIGHBORHOOD"
    plain = here.create()
    here.ended(plain["id"])
    receipt = here.client.get(f"/v1/videos/{plain['id']}/receipt").json()
    assert (receipt["requested_backend"], receipt["cache"]) == (None, None), (
        "a request's choice is that request's alone"
    )
    text = here.client.get("/metrics").text
    assert re.search(r'^fastvideo_attention_calls_total\{backend="NEIGHBORHOOD",.*role="SELF"\} [1-9]', text, re.M)
    for name in (
        'passes_total{outcome="skipped"}',
        'phase_seconds_total{phase="denoise"}',
        'videos_total{status="completed"}',
    ):
        assert float(re.search(rf"^fastvideo_{re.escape(name)} (\S+)$", text, re.M)[1]) > 0  # type: ignore[index]
    assert "fastvideo_queue_length 0.0" in text


def passes(here: Site) -> float:
    """Of the transformer, in all videos that were made."""
    found = re.search(r'^fastvideo_passes_total\{outcome="computed"\} (\S+)$', here.client.get("/metrics").text, re.M)
    return float(found[1]) if found else 0.0


def test_progress_is_that_of_steps_and_deleting_stops_the_run(here: Site) -> None:
    long, second, third = (here.create(num_inference_steps=steps) for steps in (LONG, 2, 2))
    running = here.until(long["id"], lambda video: video["steps_done"] > 2)
    assert (running["status"], running["phase"], running["num_steps"]) == ("in_progress", "denoise", LONG)
    assert running["progress"] == 100 * running["steps_done"] // LONG
    assert [here.look(one["id"])["queue_position"] for one in (long, second, third)] == [None, 1, 2]
    later = here.until(long["id"], lambda video: video["steps_done"] > running["steps_done"])
    before = passes(here)
    assert here.client.delete(f"/v1/videos/{second['id']}").json()["deleted"] is True
    assert here.look(third["id"])["queue_position"] == 1
    assert here.client.delete(f"/v1/videos/{long['id']}").json()["deleted"] is True
    assert here.client.get(f"/v1/videos/{long['id']}").status_code == 404
    assert here.ended(third["id"])["status"] == "completed"
    assert later["steps_done"] < LONG
    assert passes(here) - before < LONG, "the one that was deleted was not made to its end"
    assert not list(here.service.folder.glob(f"{long['id']}*"))
    assert not list(here.service.folder.glob(f"{second['id']}*"))


def test_parts_of_a_video_can_be_fetched(here: Site) -> None:
    video = here.create()
    early = here.client.get(f"/v1/videos/{video['id']}/content")
    if early.status_code != 200:
        assert (early.status_code, early.json()["error"]["code"]) == (404, "not_ready")
    here.ended(video["id"])
    whole = here.client.get(f"/v1/videos/{video['id']}/content")
    assert (whole.headers["content-type"], whole.headers["accept-ranges"]) == ("video/mp4", "bytes")
    part = here.client.get(f"/v1/videos/{video['id']}/content", headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, whole.content[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(whole.content)}"
    beyond = here.client.get(f"/v1/videos/{video['id']}/content", headers={"Range": "bytes=99999999-"})
    assert beyond.status_code == 416
    assert int(here.client.head(f"/v1/videos/{video['id']}/content").headers["content-length"]) == len(whole.content)
    wrong = here.client.get(f"/v1/videos/{video['id']}/content?variant=poster")
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "variant")
    for suffix, path in ((".mp4", "content?variant=thumbnail"), (".json", "receipt")):
        here.service.path(video["id"], suffix).write_bytes(b"{" * 100)
        damaged = here.client.get(f"/v1/videos/{video['id']}/{path}")
        assert (damaged.status_code, damaged.json()["error"]["code"]) == (404, "damaged")
    here.service.path(video["id"], ".mp4").unlink()
    gone = here.client.get(f"/v1/videos/{video['id']}/content")
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "gone")


def test_a_prompt_that_is_too_long_is_told_in_words_of_the_client(here: Site) -> None:
    video = here.ended(here.create(prompt="cat " * 600)["id"])
    assert (video["status"], video["error"]["code"]) == ("failed", "invalid_request")
    assert video["error"]["message"].startswith("the prompt 'cat cat")


@pytest.mark.parametrize(
    "name", ["x", "..", "../jobs.sqlite", "..%2fjobs.sqlite", "video_%00", "jobs.sqlite", "video_" + "A" * 32]
)
def test_an_id_that_is_none_leads_to_no_file(here: Site, name: str) -> None:
    for path in (f"/v1/videos/{name}", f"/v1/videos/{name}/content", f"/v1/videos/{name}/receipt"):
        answer = here.client.get(path)
        assert answer.status_code in (404, 405), path
        assert "error" in answer.json()
    assert here.client.delete(f"/v1/videos/{name}").status_code in (404, 405)


def test_a_video_can_be_waited_for(here: Site) -> None:
    answer = here.client.post("/v1/videos/sync", json={"prompt": "cat"})
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.content == here.service.path(answer.headers["x-video-id"], ".mp4").read_bytes()
    with pytest.raises(httpx.ReadTimeout):
        here.client.post("/v1/videos/sync", json={"prompt": "cat", "num_inference_steps": LONG}, timeout=0.5)
    end = time.monotonic() + 20
    while here.service.store.unfinished() and time.monotonic() < end:
        time.sleep(0.05)
    assert here.service.store.unfinished() == []
    assert LONG not in [one["num_inference_steps"] for one in here.service.snapshot()], "who goes away wants no video"


def test_events_tell_of_every_change(here: Site) -> None:
    video = here.create(num_inference_steps=30)
    told: list[str] = []
    with here.client.stream("GET", "/v1/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("data: "):
                mine = next(one for one in json.loads(line[6:]) if one["id"] == video["id"])
                told.append(mine["status"])
                if mine["status"] == "completed":
                    break
    assert told[-1] == "completed"


MISTAKES: list[tuple[dict[str, Any], str, str]] = [
    ({"prompt": ""}, "prompt", "prompt is missing or empty"),
    ({"prompt": None}, "prompt", "prompt is missing"),
    ({"prompt": 3}, "prompt", "prompt must be text, not '3'"),
    ({"prompt": "\ud800"}, "prompt", "half a character"),
    ({"prompt": "x" * 20_001}, "prompt", "the most are 20000"),
    ({"promt": "cat"}, "promt", "did you mean prompt?"),
    ({"output_path": "/tmp"}, "output_path", "unknown field 'output_path'"),
    ({"image_path": "/etc/passwd"}, "image_path", "unknown field 'image_path'"),
    ({"model": "sora-2"}, "model", "the model 'sora-2' is not served here; 'tiny' is"),
    ({"size": "48x33"}, "height", "height 33 is not a multiple of 16"),
    ({"size": "48x32", "width": 48}, "size", "are both given"),
    ({"seconds": "4", "num_frames": 5}, "seconds", "are both given"),
    ({"seconds": "long"}, "seconds", "seconds must be a number"),
    ({"seconds": -1}, "seconds", "above 0"),
    ({"seconds": True}, "seconds", "seconds must be a number"),
    ({"num_frames": 6}, "num_frames", "near it: 5 or 9"),
    ({"num_frames": 10**400}, "num_frames", "num_frames"),
    ({"num_inference_steps": 2.5}, "num_inference_steps", "must be a whole number, not 2.5"),
    ({"seed": "7"}, "seed", "must be a whole number, not '7'"),
    ({"guidance_scale": -3}, "guidance_scale", "guidance_scale is -3"),
    ({"flow_shift": []}, "flow_shift", "must be a number"),
    ({"max_sequence_length": 2000}, "max_sequence_length", "max_sequence_length is 2000; this server does up to 1024"),
    ({"num_frames": 4001, "num_inference_steps": 1000, "size": "4096x4096"}, "num_frames", "this server does up to"),
    ({"cache": "TEACASH"}, "cache", "not among those that can be chosen here: none, "),
    ({"cache": "TEACACHE@coefficients=/etc/passwd"}, "cache", "cache must be NAME or NAME@VALUE"),
    ({"cache": "TAYLORSEER@a.json"}, "cache", "a value is a number"),
    ({"attention_backend": "SLIDING_TILE_ATTN@secret"}, "attention_backend", "'secret' may name a file"),
    ({"attention_backend": "sliding-tile-attn@window=1,1,1:file=3"}, "attention_backend", "'file=3' may name a file"),
    ({"cache": "FIRSTBLOCK@nan"}, "cache", "FIRSTBLOCK@nan"),
    ({"cache": "FIRSTBLOCK@0.2:foo=3"}, "cache", "FIRSTBLOCK has no setting 'foo'"),
    ({"attention_backend": "TORCH_SDPA@5"}, "attention_backend", "TORCH_SDPA has no main setting"),
    ({"attention_backend": "SAGE_ATTN"}, "attention_backend", "not among those"),
    ({"attention_backend": ["TORCH_SDPA"]}, "attention_backend", "must be NAME"),
    ({"input_reference": "http://10.0.0.1/x.png"}, "input_reference", "nothing is fetched from an address"),
    ({"input_reference": {"image_url": "file:///etc/passwd"}}, "input_reference", "nothing is fetched"),
    ({"input_reference": {"file_id": "x"}}, "input_reference", "may hold image_url alone"),
    ({"input_reference": "data:image/png;base64,%%%"}, "input_reference", "is not base64"),
    ({"input_reference": "data:image/png;base64,AAAA"}, "input_reference", "takes no input_reference"),
]


@pytest.mark.parametrize(("fields", "param", "message"), MISTAKES)
def test_a_mistake_is_told_with_its_field(waiting: Site, fields: dict[str, Any], param: str, message: str) -> None:
    content = json.dumps({"prompt": "cat", **fields})
    answer = waiting.client.post("/v1/videos", content=content, headers={"content-type": "application/json"})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["type"]) == (400, param, "invalid_request_error"), error
    assert message in error["message"]
    assert not [path for path in waiting.service.folder.iterdir() if path.name.startswith("video_")]


def test_what_is_no_request_is_told(waiting: Site) -> None:
    post, json_kind = waiting.client.post, {"content-type": "application/json"}
    for content, kind, message in [
        (b"{", json_kind, "no JSON"),
        (b"[" * 50_000, json_kind, "no JSON"),
        (b"[1]", json_kind, "must be an object"),
        (b'{"prompt": "cat", "guidance_scale": NaN}', json_kind, "NaN is no number"),
        (b"\xff", json_kind, "no JSON"),
        (b"9" * 5000, json_kind, "no JSON"),
        (b"cat", {"content-type": "text/plain"}, "send application/json or multipart/form-data"),
        (b"cat", {}, "send application/json"),
        (b"cat", {"content-type": "multipart/form-data"}, "no form"),
        (b"--x\r\n\r\n", {"content-type": "multipart/form-data; boundary=x"}, ""),
    ]:
        answer = post("/v1/videos", content=content, headers=kind)
        assert answer.status_code == 400, (content[:20], answer.text)
        assert message in answer.json()["error"]["message"]
    form = {"prompt": "cat", "num_frames": "5", "guidance_scale": "2.5", "size": "48x32"}
    made = post("/v1/videos", data=form).json()
    assert (made["num_frames"], made["guidance_scale"], made["size"]) == (5, 2.5, "48x32")
    wrong = post("/v1/videos", data={"prompt": "cat", "num_frames": "five"}).json()["error"]
    assert (wrong["param"], wrong["message"]) == ("num_frames", "num_frames must be a whole number, not 'five'")
    answer = post("/v1/videos", data={"prompt": "cat"}, files={"other": b"x"}).json()["error"]
    assert answer["param"] == "other"
    for query in ("limit=0", "limit=x", "limit=101", "limit=²", "order=up", "after=video_x"):
        answer = waiting.client.get(f"/v1/videos?{query}")
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, query.partition("=")[0])
    assert waiting.client.get("/nowhere").json()["error"]["type"] == "invalid_request_error"
    assert waiting.client.patch("/v1/videos").status_code == 405


def test_bodies_that_are_too_large_or_too_slow_are_refused(waiting: Site) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(200):
            yield b" " * 1000

    for content in (b" " * 100_001, parts()):
        try:
            answer = waiting.client.post("/v1/videos", content=content)
        except httpx.WriteError:  # the server has closed the connection, as it may
            continue
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    address = waiting.url.removeprefix("http://").split(":")
    with socket.create_connection((address[0], int(address[1]))) as slow:
        slow.sendall(b"POST /v1/videos HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{")
        assert b"408" in slow.recv(4096)
    with socket.create_connection((address[0], int(address[1]))) as gone:
        gone.sendall(b"POST /v1/videos HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{")
    assert waiting.client.get("/health").status_code == 200


def test_without_a_key_only_this_machine_s_own_pages_are_answered(waiting: Site) -> None:
    for headers, status in [
        ({"host": "evil.example"}, 403),
        ({"host": "localhost:1"}, 200),
        ({"host": "127.0.0.1"}, 200),
        ({"host": "[::1]:80"}, 200),
        ({"host": "["}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://[x"}, 403),
        ({"origin": waiting.url}, 200),
    ]:
        assert waiting.client.get("/v1/videos", headers=headers).status_code == status, headers


def test_a_key_is_asked_for_everywhere_but_at_the_door(generator: VideoGenerator, tmp_path: Path) -> None:
    key = "sk-schlüssel-1234"
    with site(generator, tmp_path / "keyed", key=key, works=False) as keyed:
        for given in ("", "Bearer", f"Bearer {key[:-1]}", f"Bearer {key}x", f"Basic {key}", key, "Bearer \xff"):
            headers = {b"authorization": given.encode("utf-8")}
            for method, path in [
                ("GET", "/v1/videos"),
                ("POST", "/v1/videos"),
                ("GET", "/metrics"),
                ("GET", "/v1/events"),
            ]:
                answer = keyed.client.request(method, path, headers=headers)
                assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
        for path in ("/health", "/", "/page/app.js"):
            assert keyed.client.get(path).status_code == 200
        right = {b"authorization": f"Bearer {key}".encode(), b"host": b"elsewhere.example"}
        assert keyed.client.get("/v1/videos", headers=right).status_code == 200


def test_what_cannot_be_served_is_told_before_a_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wan_folder: Path
) -> None:
    monkeypatch.setattr("fastvideo_core.app.opening.load_pipeline", lambda *args, **kwargs: pytest.fail("loaded"))

    def told(*options: str) -> str:
        done = CliRunner().invoke(fv, ["serve", "--model", str(wan_folder), *options])
        assert done.exit_code == 1, done.output
        return done.output

    assert "--host 0.0.0.0 lets other machines in: set FASTVIDEO_API_KEY" in told("--host", "0.0.0.0")
    monkeypatch.setenv("FASTVIDEO_API_KEY", "short")
    assert "FASTVIDEO_API_KEY has 5 letters" in told()
    monkeypatch.delenv("FASTVIDEO_API_KEY")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "cannot be had" in told("--port", str(taken.getsockname()[1]))
    for option in ("--max-disk-gb", "--keep-hours"):
        for value, problem in (("nan", "nan is no number"), ("inf", "is not in the range"), ("-1", "not in the range")):
            done = CliRunner().invoke(fv, ["serve", option, value])
            assert (done.exit_code, problem in done.output) == (2, True), done.output
    assert "height 30 is not a multiple" in told("--height", "30")
    assert "unknown caching policy 'NOPE' (from cache=)" in told("--cache", "NOPE")
    Path("served").mkdir()
    if sys.platform != "win32":
        import fcntl

        with Path("served/serve.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            assert "another fv serve has the folder 'served'" in told("--port", "0")
    Path("served/jobs.sqlite").write_bytes(b"SQLite format 3\0" + b"nonsense" * 1000)
    assert "the jobs in 'served/jobs.sqlite' cannot be read" in told("--port", "0")
    assert "move it away: the videos beside it stay" in told("--port", "0")
    assert "(not shown)" in (shown := _doctor(monkeypatch))
    assert "secret-of-mine" not in shown


def _doctor(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("FASTVIDEO_API_KEY", "secret-of-mine")
    return CliRunner().invoke(fv, ["doctor"]).output


def test_no_answer_waits_for_an_acknowledgement() -> None:
    """Answers are sent in two parts; without the option the second waits 40 ms, which is 25 requests a second."""
    with bound_to("127.0.0.1", 0) as bound, socket.create_connection(bound.getsockname()):
        accepted, _ = bound.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_two_hundred_come_at_once(generator: VideoGenerator, tmp_path: Path) -> None:
    with (
        site(generator, tmp_path, works=False, queue=200) as many,
        httpx.Client(base_url=many.url, timeout=60) as client,
    ):

        def create(number: int) -> httpx.Response:
            return client.post("/v1/videos", json={"prompt": f"cat {number}"})

        with ThreadPoolExecutor(32) as pool:
            answers = list(pool.map(create, range(205)))
        taken = [answer.json() for answer in answers if answer.status_code == 200]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert (len(taken), len(refused)) == (200, 5)
        assert refused[0].json()["error"]["code"] == "queue_full"
        assert refused[0].headers["retry-after"]
        waits = many.service.store.unfinished()
        assert {job.id for job in waits} == {one["id"] for one in taken}
        assert [job.number for job in waits] == list(range(1, 201))
        assert many.look(waits[41].id)["queue_position"] == 42


def test_no_body_makes_the_server_fail(generator: VideoGenerator, tmp_path: Path) -> None:
    """Three thousand random bodies, half of them near to good ones."""
    store = Store(tmp_path / "jobs.sqlite")
    store._connection.execute("PRAGMA synchronous = OFF")
    app = build_app(Service(served(generator, queue=10**6), store, tmp_path), None)
    chosen = random.Random(0)
    statuses: dict[int, int] = {}

    async def send() -> None:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            for _ in range(3000):
                content, kind = random_body(chosen)
                answer = await client.post("/v1/videos", content=content, headers={"content-type": kind})
                assert answer.status_code in (200, 400, 422), (content, kind, answer.text)
                assert "error" in answer.json() or answer.status_code == 200
                statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1

    asyncio.run(send())
    store.close()
    assert statuses[200] > 50
    assert statuses[400] > 1000


NAMES = [
    "prompt",
    "model",
    "size",
    "seconds",
    "seed",
    "width",
    "num_frames",
    "fps",
    "cache",
    "input_reference",
    "guidance_scale",
    "negative_prompt",
    "attention_backend",
    "flow_shift",
    "x",
]
VALUES: list[Any] = [
    None,
    True,
    "",
    "cat",
    "48x32",
    "\ud800",
    "\0",
    -1,
    0,
    5,
    9,
    2**63,
    10**30,
    1e308,
    0.5,
    [],
    {},
    [[]],
    {"image_url": 1},
    "TEACACHE@0.1",
    "data:image/png;base64,",
    "data:image/png;base64,iVBORw0KGgo=",
    "NaN",
    "5",
    "🐱",
    "tiny",
    "none",
    16,
]


def random_body(chosen: random.Random) -> tuple[bytes, str]:
    fields = {name: chosen.choice(VALUES) for name in chosen.sample(NAMES, chosen.randrange(4))}
    fields = {"prompt": "cat", **fields} if chosen.random() < 0.8 else fields
    kind = chosen.randrange(4)
    if kind == 0:
        return chosen.randbytes(chosen.randrange(60)), chosen.choice(
            ["application/json", "multipart/form-data; boundary=x", "\x7f"]
        )
    content = json.dumps(fields).encode()
    if kind == 1:
        place = chosen.randrange(len(content) + 1)
        return content[:place] + chosen.randbytes(2) + content[place:], "application/json"
    if kind == 2:
        parts = [
            f'--x\r\nContent-Disposition: form-data; name="{name}"{chosen.choice(["", "; filename=a"])}\r\n\r\n'
            f"{value}\r\n"
            for name, value in fields.items()
        ]
        return ("".join(parts) + "--x--\r\n").encode("utf-8", "replace"), "multipart/form-data; boundary=x"
    return content, "application/json"


def test_a_locked_database_is_told_and_waited_for(generator: VideoGenerator, tmp_path: Path) -> None:
    with site(generator, tmp_path) as held:
        made = held.create()
        held.ended(made["id"])
        other = sqlite3.connect(tmp_path / "jobs.sqlite", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        answer = held.client.post("/v1/videos", json={"prompt": "cat"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "database")
        assert "database is locked" in answer.json()["error"]["message"]
        assert held.look(made["id"])["status"] == "completed", "reading goes on"
        other.execute("ROLLBACK")
        other.close()
        assert held.ended(held.create()["id"])["status"] == "completed"
        assert held.client.get("/health").json()["status"] == "ok"


def test_a_full_disk_fails_a_video_and_not_the_server(generator: VideoGenerator, tmp_path: Path) -> None:
    with site(generator, tmp_path) as full:
        full.ended(full.create()["id"])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(output, "save_as", _no_space)
            failed = full.ended(full.create()["id"])
        assert failed["error"]["code"] == "not_written"
        assert "disk is full" in failed["error"]["message"]
        assert str(tmp_path) not in failed["error"]["message"]
        assert full.ended(full.create()["id"])["status"] == "completed"
        jobs = len(full.service.snapshot())
        with room_for(0):  # nor can a job be noted
            answer = full.client.post("/v1/videos", json={"prompt": "cat"})
        assert (answer.status_code, answer.json()["error"]["type"]) == (503, "server_error")
        assert len(full.service.snapshot()) == jobs
        assert full.ended(full.create()["id"])["status"] == "completed"


def _no_space(*given: Any) -> Any:
    raise OutputError("writing failed: no space left on device")


def test_old_videos_go_when_they_expire_and_when_the_disk_is_full(generator: VideoGenerator, tmp_path: Path) -> None:
    store = Store(tmp_path / "jobs.sqlite")
    service = Service(served(generator, disk_bytes=250), store, tmp_path)
    jobs = []
    for number in range(4):
        job = store.add(Job(new_id(), Asked("cat")), 10)
        service.path(job.id, ".mp4").write_bytes(b"x" * 100)
        store.end(job.id, keep_seconds=-1 if number == 3 else 100)
        jobs.append(job.id)
    waits = store.add(Job(new_id(), Asked("dog")), 10)
    service.clear(now=True)
    assert [job.id for job in store.ended()] == jobs[1:3], (
        "the last has expired, the first is the oldest beyond the limit"
    )
    assert sorted(path.stem for path in tmp_path.glob("*.mp4")) == sorted(jobs[1:3])
    assert [job.id for job in store.unfinished()] == [waits.id]
    store.close()


def test_what_ran_when_the_server_was_killed_is_done_or_made_again_or_fails(
    generator: VideoGenerator, tmp_path: Path
) -> None:
    for again, expected in ((True, ["completed", "queued", "queued"]), (False, ["completed", "failed", "queued"])):
        folder = tmp_path / str(again)
        folder.mkdir()
        store = Store(folder / "jobs.sqlite")
        service = Service(served(generator), store, folder)
        jobs = [store.add(Job(new_id(), Asked("cat")), 10) for _ in range(3)]
        assert [store.claim(), store.claim()] == [store.get(job.id) for job in jobs[:2]]
        for suffix in (".mp4", ".json"):
            service.path(jobs[0].id, suffix).touch()
        store.close()
        service.store = Store(folder / "jobs.sqlite")
        service.resume(again)
        found = [service.store.get(job.id) for job in jobs]
        assert [job and job.status.value for job in found] == expected
        first = service.store.claim()
        assert first is not None
        assert first.id == jobs[1 if again else 2].id, "it keeps its place"
        service.store.close()


def test_an_image_comes_in_the_body(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    build_wan_image_pipeline().save_pretrained(folder)
    buffer = io.BytesIO()
    Image.new("RGB", (64, 40), "red").save(buffer, "JPEG")
    with (
        VideoGenerator.from_pretrained(folder, device="cpu") as generator,
        site(generator, tmp_path / "served", image_pixels=10_000) as here,
        openai.OpenAI(base_url=f"{here.url}/v1", api_key="unused", max_retries=0) as client,
    ):
        with pytest.raises(openai.BadRequestError, match="starts from an image; give it as input_reference"):
            client.videos.create(prompt="cat")
        video = client.videos.create_and_poll(
            prompt="cat", input_reference=("a.jpg", buffer.getvalue()), poll_interval_ms=50
        )
        assert video.status == "completed", video.error
        url = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
        assert here.ended(here.create(input_reference={"image_url": url})["id"])["status"] == "completed"
        assert here.client.get(f"/v1/videos/{video.id}/receipt").json()["input_image"] == "input_reference"
        for content, message in ((b"no image", "cannot be read as a PNG"), (_large(), "the image has 200x200 pixels")):
            with pytest.raises(openai.BadRequestError, match=message):
                client.videos.create(prompt="cat", input_reference=content)
        client.videos.delete(video.id)
        assert not list(here.service.folder.glob(f"{video.id}*"))


def _large() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (200, 200)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_stop_leaves_what_is_being_made_for_the_next_start(generator: VideoGenerator, tmp_path: Path) -> None:
    with site(generator, tmp_path) as first:
        video = first.create(num_inference_steps=LONG)
        first.until(video["id"], lambda one: one["steps_done"] > 0)
    store = Store(tmp_path / "jobs.sqlite")
    job = store.get(video["id"])
    assert job is not None
    assert job.status is Status.QUEUED
    store.remove(job.id)
    store.close()
    other = sqlite3.connect(tmp_path / "other.sqlite")
    other.execute("PRAGMA user_version = 7")
    other.close()
    with pytest.raises(OutputError, match=r"it is of version 7, this one reads 1"):
        Store(tmp_path / "other.sqlite")
