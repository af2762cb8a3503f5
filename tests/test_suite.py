"""The suite passes sound backends and fails each seeded fault; its tests cannot be overridden."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from fastvideo_core import Capabilities, MaskKind, Role
from fastvideo_core.testing import AttentionBackendSuite, Case, Inputs
from fastvideo_core.testing.cases import exact_attention, head_dims, make_inputs, some_queries
from tests.support import faulty
from tests.support.faulty import Plain, Sound
from tests.support.inner_run import failures
from tests.support.installed import write_distribution

pytestmark = pytest.mark.slow

pytest_plugins = ["pytester"]


class TestSound(AttentionBackendSuite):
    backend = Sound()


class TestPlain(AttentionBackendSuite):
    backend = Plain()


class TestByContent(AttentionBackendSuite):
    backend = faulty.TopKeys()

    def visible(self, case: Case, inputs: Inputs) -> torch.Tensor:
        return faulty.top_keys(inputs.key)


class TestBackwards(AttentionBackendSuite):
    backend = faulty.Backwards()


class TestPadsInFront(AttentionBackendSuite):
    backend = faulty.PadsInFront()


ORDER = "test_a_run_in_its_own_token_order_is_attention"
SECOND = "test_a_second_run_is_like_the_first"
DETAILS = "test_the_details_of_a_run_are_plain_values"
SHAPES = "test_shapes_may_change_and_change_back"
CALL = "test_the_call_is_left_as_it_is"
RUNS = (ORDER, SECOND, DETAILS, SHAPES, CALL)

CALLED = (
    *RUNS,
    "test_inputs_are_left_alone",
    "test_the_same_call_gives_the_same_bits",
    "test_no_call_waits_for_the_device",
)
"""What else fails where the core itself refuses the output."""

FAULTS = {
    "DropsMask": {"test_output_is_attention"},
    "IgnoresScale": {"test_output_is_attention", CALL},
    "WritesInput": {"test_inputs_are_left_alone", ORDER},
    "WritesAndRestores": {"test_inputs_are_left_alone"},
    "Transposes": {"test_output_is_attention", *CALLED},
    "LiesAboutHeadSizes": {"test_output_is_attention"},
    "AssumesDense": {"test_output_is_attention"},
    "DropsTheLastTokens": {"test_output_is_attention", ORDER},
    "Waits": {"test_no_call_waits_for_the_device"},
    "Random": {"test_the_same_call_gives_the_same_bits", SECOND, SHAPES},
    "ReturnsFloat32": {"test_output_is_attention", *CALLED},
    "SilentlyLossy": {"test_a_lossy_backend_states_its_tolerance"},
    "NoReason": {"test_the_probe_answers"},
    "RemembersTheFirstShape": {SHAPES},
    "WearsOut": {SECOND, SHAPES},
    "WearsOutLater": {SHAPES},
    "TiresWithinARun": {ORDER},
    "RoundsToBfloat16": {"test_output_is_attention", ORDER},
    "CountsOn": {SECOND},
    "TellsTensors": {DETAILS},
    "FailsAtTheEnd": {*RUNS},
    "ChangesTheCall": {CALL},
    "ForgetsAPlace": {ORDER},
    "SeesItsPadding": {ORDER},
    "TopKeys": {"test_output_is_attention", ORDER},
    "ProbeRaises": {"test_the_probe_answers"},
}


HERE = pytest.mark.skipif(not torch.cuda.is_available(), reason="33,600 tokens need a GPU")
ON_A_GPU = {"CountsIn16Bits": {"test_a_long_video"}}


@pytest.mark.parametrize("fault", [*FAULTS, *(pytest.param(fault, marks=HERE) for fault in ON_A_GPU)])
def test_a_seeded_fault_fails_the_suite(fault: str, tmp_path: Path) -> None:
    source = f"""
from fastvideo_core.testing import AttentionBackendSuite
from tests.support.faulty import {fault}

class TestFault(AttentionBackendSuite):
    backend = {fault}()
"""
    assert failures(tmp_path, source, "-k", "not layers_share").keys() == {**FAULTS, **ON_A_GPU}[fault]


def test_a_failure_names_what_it_was_held_against(tmp_path: Path) -> None:
    source = """
from fastvideo_core.testing import AttentionBackendSuite
from tests.support.faulty import TopKeys

class TestForgotten(AttentionBackendSuite):
    backend = TopKeys()

class TestWrong(AttentionBackendSuite):
    backend = TopKeys()

    def visible(self, case, inputs):
        return inputs.key.sum(dim=-1).transpose(1, 2)[:, :, None] > -1
"""
    forgotten = failures(tmp_path, source, "-k", "TestForgotten and output_is_attention")
    assert "over all keys; a sparse backend replaces visible(case, inputs)" in forgotten["test_output_is_attention"]
    wrong = failures(tmp_path, source, "-k", "TestWrong and output_is_attention")
    assert "over the keys that visible(case, inputs) of TestWrong leaves" in wrong["test_output_is_attention"]


def test_the_grid_has_the_least_and_the_greatest_head_and_masks_as_long_as_they_say() -> None:
    declared = Capabilities(roles=frozenset(Role), lossless=True, head_dims=frozenset({16, 64, 72, 256}))
    assert head_dims(declared) == [16, 64, 256]
    for role, video in ((Role.JOINT, 105), (Role.CROSS, 0)):
        case = Case(role, 16, "float32", batch=2, text_lengths=(25, 7), mask=MaskKind.KEY_LENGTH)
        mask = make_inputs(case, "cpu").mask
        assert mask is not None
        assert mask.sum(dim=-1).flatten().tolist() == [video + 25, video + 7]


def test_some_queries_see_what_they_see_among_all() -> None:
    inputs = make_inputs(Case(Role.SELF, 16, "float32"), "cpu")
    seen = torch.rand(1, 3, 105, 105, generator=torch.Generator().manual_seed(0)) < 0.5
    seen[..., 0] = True
    for visible in (None, seen, seen[:, :, :1]):
        some, of_some = some_queries(inputs, visible, 10)
        expected = exact_attention(inputs, None, visible)[:, ::10]
        torch.testing.assert_close(exact_attention(some, None, of_some), expected)


def test_every_fault_is_tried() -> None:
    kinds = {name for name, value in vars(faulty).items() if isinstance(value, type) and issubclass(value, Sound)} - {
        "Sound",
        "Plain",
        "Faulty",
        "Stateful",
        "Backwards",
        "PadsInFront",
    }
    assert kinds == {*FAULTS, *ON_A_GPU}


def test_a_test_of_the_suite_cannot_be_replaced() -> None:
    with pytest.raises(TypeError, match=r"Mine replaces test_output_is_attention of AttentionBackendSuite"):
        type("Mine", (AttentionBackendSuite,), {"test_output_is_attention": lambda self: None})
    mixin = type("Mixin", (), {"test_the_probe_answers": None})
    with pytest.raises(TypeError, match=r"Mine replaces test_the_probe_answers"):
        type("Mine", (mixin, AttentionBackendSuite), {})
    with pytest.raises(TypeError, match=r"Mine replaces pytest_generate_tests"):
        type("Mine", (AttentionBackendSuite,), {"pytest_generate_tests": lambda self, metafunc: None})


PLUGIN = """
{top}
from fastvideo_core import AttentionBackend, Capabilities, Probe, Role, hookimpl

api_version = 2


class Acme(AttentionBackend):
    name = "ACME"
    capabilities = Capabilities(roles=frozenset({{Role.SELF}}), lossless=True, dtypes=frozenset({{"float32"}}))

    def probe(self):
        return Probe({available})

    def load(self):
        from torch.nn.functional import scaled_dot_product_attention as sdpa

        def attend(query, key, value, call):
            return sdpa(*(x.transpose(1, 2) for x in (query, key, value)), scale=call.scale).transpose(1, 2)

        return attend


@hookimpl
def fastvideo_attention_backends():
    return [Acme()]
"""


def install(site: Path, monkeypatch: pytest.MonkeyPatch, top: str = "", available: str = "") -> None:
    """Put a distribution with one backend on the path, as an installer would leave it."""
    available = available or "True, kernel='acme.kernel', version='1.0'"
    write_distribution(site, "acme", "1.0", "acme_kernel", PLUGIN.format(top=top, available=available), plugin="acme")
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)


_UNNEEDED = ("cacheprovider", "xdist", "hypothesispytest", "unraisableexception")
"""The last looks for garbage again and again at the end, with all that torch and diffusers have."""


def run_on(pytester: pytest.Pytester, name: str, only: str = "") -> Any:
    unneeded = [word for plugin in _UNNEEDED for word in ("-p", f"no:{plugin}")]
    options = (*unneeded, "-q", "-rfs", "-k", only, "--fv-backend", name)
    return pytester.runpytest_subprocess(*options)


def test_the_command_line_runs_the_suite_on_an_installed_backend(
    pytester: pytest.Pytester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile("def test_of_the_project(): assert False")
    install(tmp_path / "site", monkeypatch)
    outcomes = run_on(pytester, "acme").parseoutcomes()
    assert outcomes["passed"] > 20
    assert "failed" not in outcomes


def test_the_command_line_says_why_a_kernel_is_skipped(
    pytester: pytest.Pytester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "site", monkeypatch, available="False, reason='no Acme card', remedy='buy one'")
    result = run_on(pytester, "ACME", only="output_is_attention")
    result.stdout.fnmatch_lines(["*ACME cannot run here: no Acme card*"])
    assert "failed" not in result.parseoutcomes()


def test_what_a_fresh_python_shows_of_an_installed_backend_fails(
    pytester: pytest.Pytester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plugin that imports torch at discovery, and whose probe needs a GPU to answer."""
    raises = "True, kernel='acme', version=__import__('os').environ['CUDA_VISIBLE_DEVICES'][0]"
    install(tmp_path / "site", monkeypatch, top="import torch", available=raises)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    result = run_on(pytester, "ACME", only="imports_neither or no_gpu")
    result.stdout.fnmatch_lines_random(
        [
            "FAILED*test_discovery_imports_neither_torch_nor_the_kernel*",
            "FAILED*test_the_probe_answers_where_there_is_no_gpu*",
        ]
    )
    assert result.parseoutcomes()["failed"] == 2


def test_an_unknown_name_is_one_line(pytester: pytest.Pytester) -> None:
    result = run_on(pytester, "TORCH_SPDA")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: unknown attention backend 'TORCH_SPDA' (from --fv-backend)*did you mean*"])
