"""HunyuanVideo-1.5, Framepack, and pipelines of HunyuanVideo and CogVideoX with images and videos, pass the suite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from fastvideo_core import attach
from fastvideo_core.testing import ModelFamilySuite
from tests.support import conditioned, models_hunyuan
from tests.support.backends import Recorder
from tests.support.families import FAMILIES
from tests.support.models import run_to_latents
from tests.support.models_hunyuan import hunyuan15_latents

IMAGE = torch.full((1, 3, 32, 48), 0.5)


def suite(family: str, build: Callable[[], Any], generate: Callable[[Any], torch.Tensor], cuts_text: bool) -> type:
    """The suite on pipelines of 9 frames of 32x48."""

    class Of(ModelFamilySuite):
        def build(self) -> Any:
            return build()

        def generate(self, pipe: Any) -> torch.Tensor:
            return generate(pipe)

    own: dict[str, Any] = {"family": FAMILIES[family], "size": (9, 32, 48), "cuts_text": cuts_text}
    return type("Test", (Of,), own)


def latents_of(kind: str) -> Callable[[Any], torch.Tensor]:
    """Latents of a pipeline of the other tests, with what it needs."""
    steps = 5 if "VideoToVideo" in kind else 3  # video-to-video leaves some out
    options = {**conditioned.CONDITIONED[kind][1], "num_inference_steps": steps}
    return lambda pipe: torch.from_numpy(run_to_latents(pipe, **options))


def conditioned_suite(kind: str, family: str, cuts_text: bool = False) -> type:
    return suite(family, conditioned.CONDITIONED[kind][0], latents_of(kind), cuts_text)


def framepack_latents(pipe: Any, num_frames: int = 9) -> torch.Tensor:
    """Latents of a section of 9 frames, or of several."""
    sections = pipe(
        **conditioned.CONDITIONED["HunyuanVideoImageToVideo"][1],
        height=32,
        width=48,
        num_frames=num_frames,
        latent_window_size=3,
        num_inference_steps=3,
        generator=torch.Generator("cpu").manual_seed(7),
        output_type="latent",
    ).frames
    return torch.cat(sections, dim=2)


def hunyuan15(pipe: Any) -> torch.Tensor:
    return hunyuan15_latents(pipe)


def twice(value: Any) -> Any:
    """A batch of two."""
    return value.repeat(2, *(1,) * (value.ndim - 1)) if isinstance(value, torch.Tensor) else value


@pytest.mark.slow
def test_tokens_that_keep_their_order_are_brought_into_tiles_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first frame has a timestep of its own, and blocks know its tokens by their place."""
    for name, value in {"TILE": "2,8,8", "WINDOW": "1,1,1", "DENSE": "0"}.items():
        monkeypatch.setenv(f"FASTVIDEO_STA_{name}", value)
    pipe = models_hunyuan.build_token_replace_pipeline()
    options = {**conditioned.CONDITIONED["HunyuanVideoImageToVideo"][1], "height": 160, "width": 208}
    options |= {"true_cfg_scale": 1.0, "num_inference_steps": 1}
    bare, latents = run_to_latents(pipe, **options), []
    for order in ("forward", "layer"):
        monkeypatch.setenv("FASTVIDEO_STA_ORDER", order)
        with attach(pipe, attention_backend="SLIDING_TILE_ATTN") as fv:
            latents.append(run_to_latents(pipe, **options))
        assert fv.receipt.attention["JOINT"].details["token_order"] == "at each call"
    assert np.array_equal(*latents)
    assert abs(latents[0] - bare).max() > 1e-3


def test_framepack_makes_a_run_of_each_section() -> None:
    pipe = models_hunyuan.build_framepack_pipeline()
    bare = framepack_latents(pipe, num_frames=17)
    recorder = Recorder()
    with attach(pipe, attention_backend=recorder) as fv:
        ours = framepack_latents(pipe, num_frames=17)
    torch.testing.assert_close(ours, bare)
    assert bare.shape[2] == 3 + 7  # two sections of three, the image before the last
    steps = [step for _, branch, step, _, layer, _ in recorder.seen if layer == 0 and not branch]
    assert steps == [0, 1, 2] * 2
    assert fv.receipt.steps_computed == {"": 3, "call 2": 3}


def test_framepack_with_two_prompts_hides_the_padding_of_the_shorter() -> None:
    pipe = models_hunyuan.build_framepack_pipeline()
    text, seen = conditioned.CONDITIONED["HunyuanVideoImageToVideo"][1], list[dict[str, Any]]()
    hook = pipe.transformer.register_forward_pre_hook(lambda m, args, kwargs: seen.append(kwargs), with_kwargs=True)
    framepack_latents(pipe)
    hook.remove()
    arguments = {name: value if name.startswith("indices") else twice(value) for name, value in seen[0].items()} | {
        "encoder_hidden_states": torch.cat([text["prompt_embeds"], text["negative_prompt_embeds"]]),
        "encoder_attention_mask": torch.cat([text["prompt_attention_mask"], text["negative_prompt_attention_mask"]]),
    }
    recorder = Recorder()
    with torch.no_grad(), attach(pipe, attention_backend=recorder) as fv:
        bare = pipe.transformer(**arguments)[0]
        with fv.run(num_steps=1) as step_done:
            ours = pipe.transformer(**arguments)[0]
            step_done()
    torch.testing.assert_close(ours, bare)
    keys = [count for count, *_ in recorder.masks]
    assert keys == [keys[0], keys[0] - 2] * 3


TestHunyuanVideo15 = suite("HunyuanVideo-1.5", models_hunyuan.build_hunyuan15_pipeline, hunyuan15, True)
TestHunyuanVideo15Image = suite("HunyuanVideo-1.5", models_hunyuan.build_hunyuan15_image_pipeline, hunyuan15, True)
TestHunyuanVideoImage = conditioned_suite("HunyuanVideoImageToVideo", "HunyuanVideo", cuts_text=True)
TestHunyuanVideoTokenReplace = suite(
    "HunyuanVideo", models_hunyuan.build_token_replace_pipeline, latents_of("HunyuanVideoImageToVideo"), True
)
TestFramepack = suite("Framepack", models_hunyuan.build_framepack_pipeline, framepack_latents, False)
TestAllegro = suite("Allegro", models_hunyuan.build_allegro_pipeline, models_hunyuan.latents_of_prompts, True)
TestCogVideoXImage = conditioned_suite("CogVideoXImageToVideo", "CogVideoX")
TestCogVideoXVideo = conditioned_suite("CogVideoXVideoToVideo", "CogVideoX")
TestCogVideoXControl = conditioned_suite("CogVideoXFunControl", "CogVideoX")
