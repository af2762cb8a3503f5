"""More model families pass the suite: Kandinsky 5, Cosmos, Helios."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch

from fastvideo_core import Attachment, Role, Signal, TokenLayout, attach
from fastvideo_core.errors import UnsupportedModelError
from fastvideo_core.testing import ModelFamilySuite
from fastvideo_core.testing.family_runs import Watching
from tests.support.families import FAMILIES, family_of_transformer
from tests.support.left_out import LEFT_OUT
from tests.support.models import SIZE, run_to_latents
from tests.support.models_more import (
    MORE,
    VARIANTS,
    build_cosmos25_pipeline,
    build_helios_pipeline,
    build_kandinsky5_pipeline,
    text,
)
from tests.support.policies import Scripted

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers' schedulers, with numpy 2


class OfMore(ModelFamilySuite):
    """The suite on a pipeline of `MORE`."""

    kind = ""

    def build(self) -> Any:
        return MORE[self.kind][0]()

    def generate(self, pipe: Any) -> torch.Tensor:
        return torch.from_numpy(run_to_latents(pipe, **MORE[self.kind][1]))


def suite(kind: str, family: str, **changes: Any) -> type:
    size = {**SIZE, **MORE[kind][1]}
    frames_height_width = (size["num_frames"], size["height"], size["width"])
    return type("Test", (OfMore,), {"kind": kind, "family": FAMILIES[family], "size": frames_height_width, **changes})


TestKandinsky5 = suite("Kandinsky 5", "Kandinsky 5", latent_axes=(2, 3))
TestCosmos1 = suite("Cosmos 1", "Cosmos")
TestCosmos25 = suite("Cosmos 2.5 video", "Cosmos")
TestHelios = suite("Helios", "Helios")
TestEasyAnimate = suite("EasyAnimate", "EasyAnimate")


def frames(pipe: Any, options: dict[str, Any]) -> torch.Tensor:
    pipe.set_progress_bar_config(disable=True)
    return torch.from_numpy(run_to_latents(pipe, **options))


@pytest.mark.parametrize("variant", VARIANTS)
def test_another_pipeline_of_the_family(variant: str) -> None:
    family, build, options = VARIANTS[variant]
    pipe = build()
    bare = frames(pipe, options)
    assert family_of_transformer(pipe).name == family
    with attach(pipe, attention_backend="TORCH_SDPA") as fv:
        assert torch.equal(frames(pipe, options), bare)
        assert set(fv.receipt.attention) == {"SELF", "CROSS"}
    backend = Watching(ordered=True)
    with attach(pipe, attention_backend=backend):
        torch.testing.assert_close(frames(pipe, options), bare, rtol=1e-3, atol=1e-3)
    assert backend.calls


def test_cosmos_sees_an_image_beside_the_text_and_follows_a_control_network() -> None:
    """As `Cosmos2_5_TransferPipeline` calls its transformer: what makes the residuals needs torchvision."""
    pipe = build_cosmos25_pipeline(controlnet_block_every_n=2, img_context_dim_in=16, img_context_dim_out=32)
    arguments = {
        "hidden_states": torch.linspace(-1, 1, 16 * 3 * 4 * 6).reshape(1, 16, 3, 4, 6),
        "condition_mask": torch.ones(1, 1, 3, 4, 6),
        "timestep": torch.tensor([0.1, 0.9, 0.9]).reshape(1, 1, 3, 1, 1),
        "encoder_hidden_states": (text(7), -text(3)),
        "block_controlnet_hidden_states": [text(18, 32)],
    }

    def output() -> torch.Tensor:
        with torch.no_grad():
            found: torch.Tensor = pipe.transformer(**arguments, return_dict=False)[0]
        return found

    def within(fv: Attachment) -> torch.Tensor:
        with fv.run(1) as step_done:
            found = output()
            step_done()
        return found

    bare = output()
    with attach(pipe, attention_backend="TORCH_SDPA") as fv:
        assert torch.equal(within(fv), bare)
        assert (fv.receipt.attention["SELF"].calls, fv.receipt.attention["CROSS"].calls) == (2, 4)
    with attach(pipe, attention_backend=Watching(ordered=True)) as fv:
        torch.testing.assert_close(within(fv), bare, rtol=1e-3, atol=1e-3)
    arguments["block_controlnet_hidden_states"] = [-text(18, 32)]
    assert not torch.allclose(output(), bare, rtol=1e-3, atol=1e-3)


def test_noise_levels_on_another_scale_are_not_taken_for_timesteps() -> None:
    """The nearest of the scheduler's timesteps, 80000 to 2, to a noise level below 1 is the last."""
    build, options = VARIANTS["from an image, too"][1:]
    policy = Scripted(signal=Signal.TIME_EMBEDDING)
    with attach(pipe := build(), cache=policy):
        frames(pipe, options)
    assert [(branch.num_steps, branch.timesteps, branch.changes) for branch in policy.branches] == [(3, (), None)] * 2


def test_kandinsky_s_timesteps_are_known_ahead() -> None:
    build, options = MORE["Kandinsky 5"]
    policy = Scripted(signal=Signal.TIME_EMBEDDING)
    with attach(pipe := build(), cache=policy):
        frames(pipe, options)
    assert [branch.timesteps for branch in policy.branches] == [tuple(pipe.scheduler.timesteps.tolist())] * 2
    assert all(len(branch.changes or ()) == 3 for branch in policy.branches)


def test_kandinsky_with_sparse_attention_of_its_own_is_refused() -> None:
    pipe = build_kandinsky5_pipeline(attention_type="nabla")
    message = r"sparse attention of its own \(attention_type 'nabla'\).* take a checkpoint whose attention_type is 'reg"
    with pytest.raises(UnsupportedModelError, match=message):
        attach(pipe)
    with pytest.raises(UnsupportedModelError, match=message):
        FAMILIES["Kandinsky 5"].geometry(pipe.transformer.config, pipe.vae.config)
    with attach(build_kandinsky5_pipeline()):
        pass  # and nothing is left of what was refused


def test_helios_s_chunks_are_runs_of_their_own() -> None:
    build, options = VARIANTS["in two chunks"][1:]
    watching = Watching()
    with attach(pipe := build(), attention_backend=watching) as fv:
        frames(pipe, options)
        assert fv.receipt.steps_computed == {"cond": 3, "uncond": 3}
        assert fv.receipt.token_grid == (9, 2, 3)
    steps = [call.step for call in watching.calls if call.role is Role.SELF and call.branch == "cond"]
    assert steps == [0, 0, 1, 1, 2, 2] * 2
    assert {call.layout.text_before for call in watching.calls} == {2 * 2 * 3 + 2 + 4}


def test_helios_makes_nine_frames_of_latents_at_a_time_however_long_the_video() -> None:
    pipe = build_helios_pipeline()
    geometry = FAMILIES["Helios"].geometry(pipe.transformer.config, pipe.vae.config)
    assert geometry.grid(33, 32, 48) == geometry.grid(132, 32, 48) == (9, 2, 3)


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_is_left_out_is_there_and_served_by_no_family(name: str) -> None:
    if not hasattr(diffusers, name):
        pytest.skip(f"diffusers {diffusers.__version__} has no {name}")
    kinds = {kind.__name__ for kind in getattr(diffusers, name).__mro__}
    assert kinds.isdisjoint(family.transformer for family in FAMILIES.values())


@pytest.mark.parametrize(("learned", "most"), [("learnable", 120), (None, 128)])
def test_cosmos_s_longest_axis_is_what_its_position_embedding_holds(learned: str | None, most: int) -> None:
    config = {"patch_size": (1, 2, 2), "max_size": (128, 240, 240), "extra_pos_embed_type": learned}
    geometry = FAMILIES["Cosmos"].geometry(config, {})
    assert (geometry.pixels_per_token, geometry.frames_per_token, geometry.max_tokens) == ((16, 16), 4, most)


def test_easyanimate_s_texts_stand_one_behind_the_other() -> None:
    arguments = {
        "hidden_states": torch.empty(1, 4, 3, 4, 6),
        "encoder_hidden_states": text(7),
        "encoder_hidden_states_t5": text(5),
    }
    layout = FAMILIES["EasyAnimate"].token_layout({"patch_size": 2}, arguments)
    assert layout == TokenLayout((3, 2, 3), text_before=12)


def test_cosmos_compiled_as_a_whole() -> None:
    """Its loop counts the blocks, so that a graph of it has gone through their list before the first is called."""
    build, options = MORE["Cosmos 1"]
    bare = frames(pipe := build(), options)
    torch.compiler.reset()
    pipe.transformer.compile(backend="eager")
    with attach(pipe, attention_backend="TORCH_SDPA") as fv:
        torch.testing.assert_close(frames(pipe, options), bare)
    torch.compiler.reset()
    assert fv.receipt.compiled
    assert (fv.receipt.attention["SELF"].calls, fv.receipt.attention["CROSS"].calls) == (12, 12)
