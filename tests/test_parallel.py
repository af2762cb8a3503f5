"""Several processes make the video that one makes: every family, policies, orders of tokens, tables per head."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fastvideo_core import Receipt, TokenLayout, attach
from fastvideo_core.discovery.plugins import load_plugins
from fastvideo_core.engine.parallel.degrees import Degrees
from fastvideo_core.engine.parallel.shareable import check_degrees, check_shareable
from fastvideo_core.engine.parallel.started import Launch, first_host, launch_of
from fastvideo_core.errors import (
    AttachError,
    BackendOutputError,
    InputError,
    ParallelError,
    PeerError,
    PolicyMismatchError,
)
from tests.support import together_cases
from tests.support.families import FAMILIES, family_of_transformer
from tests.support.models import build_wan_pipeline
from tests.support.together import Together, together
from tests.support.together_cases import MODELS, attention_in_parts, cases, difference
from tests.support.together_more import MORE_MODELS

ROUNDING = 1e-5
"""What a batch that is cut may differ by, as a share of the largest latent: its matrix products are of other shapes.

The same goes for four processes with four or five of HunyuanVideo's tokens each.
"""


@pytest.fixture(params=[2, 3, 4], ids=lambda size: f"{size} processes")
def group(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[int, Together]]:
    with together(request.param, tmp_path) as processes:
        yield request.param, processes


@pytest.mark.slow
def test_they_make_the_video_that_one_makes(group: tuple[int, Together]) -> None:
    size, processes = group
    problems = {}
    for result in processes.run(attention_in_parts):
        assert max(result) < 1e-6, result
    for name, case in cases(size).items():
        results = processes.run(difference, size, name)
        if errors := [result for result in results if isinstance(result, BaseException)]:
            problems[name] = f"{errors[0]!r} {getattr(errors[0], '__notes__', '')}"
            continue
        worst, number, alone, found = results[0]
        rounds = is_batch_cut(found) or (size == 4 and "Hunyuan" in case.model)
        if worst > (ROUNDING if rounds else 0.0):
            problems[name] = f"the latents differ by {worst} of the largest"
        elif any(one[1] != number for one in results):
            problems[name] = "the processes have different latents"
        elif problem := receipts_differ(alone, [one[3] for one in results]):
            problems[name] = problem
        assert case.parallel == "auto" or found.parallel.sequence == case.parallel["sequence"]
    assert problems == {}


def is_batch_cut(receipt: Receipt) -> bool:
    """Whether both branches are in one batch, of which each half of the processes computes one."""
    assert receipt.parallel is not None
    return receipt.parallel.guidance == 2 and len(receipt.steps_computed) == 1


def receipts_differ(alone: Receipt, found: list[Receipt]) -> str | None:
    """In what the receipts of several processes differ from one another, or from that of one."""
    for one in found:
        for name in ("steps_computed", "steps_skipped", "token_grid", "num_inference_steps", "requested_backend"):
            if getattr(one, name) != getattr(alone, name):
                return f"{name} is {getattr(one, name)} instead of {getattr(alone, name)}"
        if alone.cache and (one.cache is None or one.cache.schedule != alone.cache.schedule):
            return f"the schedule is {one.cache and one.cache.schedule} instead of {alone.cache.schedule}"
        if one.parallel is None or one.parallel != found[0].parallel:
            return "the processes have different receipts"
        if one.parallel.guidance == 1 and any(
            rank.calls != {role: served.calls for role, served in alone.attention.items()}
            for rank in one.parallel.ranks
        ):
            return f"calls are {[rank.calls for rank in one.parallel.ranks]}"
    return None


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Together]:
    with together(2, tmp_path_factory.mktemp("two"), {rank: {TIMEOUT: "6"} for rank in (0, 1)}) as processes:
        yield processes


TIMEOUT = "FASTVIDEO_PARALLEL_TIMEOUT"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "arguments", "kind", "message"),
    [
        (
            "attach_to_wan",
            ({"sequence": 3},),
            InputError,
            "guidance 1 x sequence 3, which is 3 processes, and there are 2",
        ),
        ("attach_to_wan", ({"guidance": 3},), InputError, "guidance is 3, it must be 1 or 2"),
        ("attach_to_wan", ({"ring": 2},), InputError, "names 'ring'; there are sequence and guidance"),
        ("attach_to_wan", ("both",), InputError, "parallel is 'both', it must be 'auto', or degrees"),
        (
            "each_its_own_size",
            (),
            ParallelError,
            "size is (1, 16, 3, 4, 6) in process 0 and (1, 16, 3, 6, 6) in process 1",
        ),
        ("refuses_others", (), PolicyMismatchError, "use parallel={'sequence': 2}"),
        ("diffusers_own", (), AttachError, "attach(pipe, parallel={'sequence': N})"),
    ],
)
def test_what_does_not_go_together_is_refused(
    two: Together, function: str, arguments: tuple[object, ...], kind: type[Exception], message: str
) -> None:
    for error in two.run(getattr(together_cases, function), *arguments):
        assert type(error) is kind, getattr(error, "__notes__", error)
        assert message in str(error)


@pytest.mark.slow
def test_the_first_process_draws_the_latents(two: Together) -> None:
    first, second = two.run(together_cases.each_its_own_latents)
    assert first == second


@pytest.mark.slow
def test_the_first_process_decides_and_has_the_latents(two: Together) -> None:
    results = two.run(together_cases.the_others_go_astray)
    assert [result for result in results if isinstance(result, BaseException)] == []
    assert results[0][0], "not the video of one process"
    assert [schedule for _, schedule in results] == [{"cond": "CRCRCR", "uncond": "CRCRCR"}] * 2


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_of_one_process_ends_the_others_and_the_next_run_works(two: Together, rank: int) -> None:
    results = two.run(together_cases.fail_and_go_on, rank)
    assert [result for result in results if isinstance(result, BaseException)] == []
    errors, seconds, receipts = zip(*results, strict=True)
    assert type(errors[rank]) is BackendOutputError
    assert type(errors[1 - rank]) is PeerError
    assert f"process {rank} failed with BackendOutputError: the kernel broke" in str(errors[1 - rank])
    assert max(seconds) < 5, "they waited until the time was up"
    assert receipts[0].parallel.processes == 2


@pytest.mark.slow
def test_a_process_that_does_not_come_is_an_error_in_time(two: Together) -> None:
    results = two.run(together_cases.come_late, 6.0, 3.0)
    error, seconds, _ = results[0]
    assert type(error) is PeerError
    assert "within 3 s (FASTVIDEO_PARALLEL_TIMEOUT)" in str(error)
    assert "process 1 was last heard of" in str(error)
    assert "in step 1, branch" in str(error)
    assert seconds < 6, "it waited for the other"


@pytest.mark.slow
def test_time_and_bytes_are_in_the_receipt(two: Together) -> None:
    (seconds, receipt), _ = two.run(together_cases.timed)
    spent = [rank.communication_seconds for rank in receipt.parallel.ranks]
    assert all(one is not None and one > 0 for one in spent)
    assert seconds > 0
    # 3 steps of 2 branches: 2 layers, each with query, key, value and result of half of 18 tokens for half of the heads
    # of 16 numbers in 4 bytes, and at the end half of the tokens in 32 numbers.
    exchanged = 6 * (2 * 4 * 9 * 16 * 4 + 9 * 32 * 4)
    assert receipt.parallel.ranks[1].bytes_sent == exchanged
    latents = 6 * 16 * 3 * 4 * 6 * 4
    assert receipt.parallel.ranks[0].bytes_sent == exchanged + latents


@pytest.mark.slow
@pytest.mark.parametrize("model", ["Wan 2.1", "HunyuanVideo", "LTX-Video", "CogVideoX", "Mochi"])
def test_tiles_are_decoded_by_all(two: Together, model: str) -> None:
    results = two.run(together_cases.decode_in_tiles, model)
    assert [result for result in results if isinstance(result, BaseException)] == []
    assert all(same for same, _, _ in results)
    assert results[0][1] == results[1][1]
    assert all(sent > 0 for _, _, sent in results)


@pytest.mark.slow
def test_other_settings_in_one_process_are_refused(tmp_path: Path) -> None:
    with together(2, tmp_path, {1: {"FASTVIDEO_CACHE_POLICY": "TAYLORSEER"}}) as processes:
        for error in processes.run(together_cases.attach_to_wan):
            assert type(error) is ParallelError
            assert "FASTVIDEO_CACHE_POLICY is None in process 0 and 'TAYLORSEER' in process 1" in str(error)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["auto", {"sequence": 2}])
def test_a_model_that_cannot_be_cut_is_refused_where_it_is_attached(two: Together, parallel: object) -> None:
    for error in two.run(together_cases.run_model, "Framepack", parallel):
        assert type(error) is ParallelError, getattr(error, "__notes__", error)
        assert "Framepack cannot be shared by several processes by sequence yet: it is not declared" in str(error)


@pytest.mark.slow
def test_what_the_first_pass_shows_cannot_be_cut_is_refused_there(two: Together) -> None:
    for error in two.run(together_cases.run_ltx_from_images, {"sequence": 2}):
        assert type(error) is ParallelError, getattr(error, "__notes__", error)
        assert "cannot be shared by several processes" in str(error)
        assert "tokens stand beside the video's" in str(error)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_video_that_does_not_fit_one_process_is_decoded_in_tiles_by_all(two: Together, rank: int) -> None:
    assert two.run(together_cases.decides_on_tiles, rank) == [(False, True)] * 2


REFUSED = {"Framepack": "it is not declared to be", "Helios": "its blocks count the video tokens"}


def test_every_family_is_tried_by_sequence_or_refused() -> None:
    two = (case for case in cases(2).values() if isinstance(case.parallel, dict) and case.parallel.get("sequence") == 2)
    models = {**MODELS, **MORE_MODELS}
    tried = {family_of_transformer(models[model][0]()).name for model in {*MORE_MODELS, *(case.model for case in two)}}
    families = {family.name: family for family in load_plugins().families()}
    assert tried | REFUSED.keys() == families.keys()
    assert not tried & REFUSED.keys()
    for name, family in families.items():
        check_degrees(family, Degrees(1, 2))
        if name in tried:
            check_degrees(family, None)
            continue
        for degrees in (None, Degrees(2)):
            with pytest.raises(ParallelError, match=rf"^{name} cannot be shared .*: {REFUSED[name]}.*; use one GPU"):
                check_degrees(family, degrees)


def test_layouts_that_cannot_be_cut_are_refused() -> None:
    ltx, hunyuan, wan = (FAMILIES[name] for name in ("LTX-Video", "HunyuanVideo", "Wan"))
    for layout in (TokenLayout((2, 3, 4), text_before=12), TokenLayout((2, 3, 4), text_after=12)):
        check_shareable(hunyuan, layout)
        with pytest.raises(ParallelError, match=r"LTX-Video cannot be shared .* 12 tokens stand beside the video's"):
            check_shareable(ltx, layout)
    check_shareable(hunyuan, TokenLayout((2, 3, 4), fixed=True))  # it says how many tokens are told by their place
    with pytest.raises(ParallelError, match=r"Wan cannot be shared .* tell tokens by their place"):
        check_shareable(wan, TokenLayout((2, 3, 4), fixed=True))


def test_without_a_launcher_it_says_how_to_start() -> None:
    with pytest.raises(ParallelError, match=r"torchrun --nproc-per-node N SCRIPT.*num_gpus=N"):
        attach(build_wan_pipeline(), parallel="auto")


@pytest.mark.parametrize(
    ("environment", "launch"),
    [
        (
            {"RANK": "3", "WORLD_SIZE": "4", "MASTER_ADDR": "gpu1", "MASTER_PORT": "1234"},
            Launch(3, 4, "gpu1", 1234),
        ),
        (
            {
                "SLURM_PROCID": "2",
                "SLURM_NTASKS": "8",
                "SLURM_JOB_ID": "70021",
                "SLURM_STEP_NODELIST": "gpu[03-05,9],x",
            },
            Launch(2, 8, "gpu03", 30021),
        ),
    ],
)
def test_a_launcher_is_known(environment: dict[str, str], launch: Launch) -> None:
    assert launch_of(environment) == launch


@pytest.mark.parametrize(
    ("nodes", "first"), [("node7", "node7"), ("a-1,a-2", "a-1"), ("n[1-4]", "n1"), ("n[08,10]-ib", "n08-ib")]
)
def test_the_first_host_of_slurm(nodes: str, first: str) -> None:
    assert first_host(nodes) == first
