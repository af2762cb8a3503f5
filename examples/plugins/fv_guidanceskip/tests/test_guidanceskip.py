from typing import Any

import pytest
import torch
from fv_guidanceskip import GuidanceSkip

from fastvideo_core import Attachment, attach
from fastvideo_core.errors import InputError, PolicyMismatchError
from fastvideo_core.testing import CachePolicySuite, latents, small_pipeline


class TestGuidanceSkip(CachePolicySuite):
    policy = GuidanceSkip(interval=3)
    never = GuidanceSkip(interval=1)


@pytest.mark.parametrize(
    ("interval", "after", "schedule"),
    [
        (2, 0.2, "CCFCFCFCFC"),
        (3, 0.2, "CCFFCFFCFF"),
        (4, 0.5, "CCCCCFFFCF"),
        (2, 0, "CFCFCFCFCF"),
        (1, 0, "C" * 10),
        (2, 0.28, "CCCFCFCFCF"),
    ],
)
def test_one_branch_is_the_other_and_the_difference_that_was_kept(interval: int, after: float, schedule: str) -> None:
    pipe = small_pipeline()
    added: list[torch.Tensor] = []
    entering: list[torch.Tensor] = []
    with attach(pipe, cache=GuidanceSkip(interval, after)) as fv:
        hooks = [
            pipe.transformer.patch_embedding.register_forward_hook(
                lambda module, args, output: entering.append(output.flatten(2).mT.clone())
            ),
            pipe.transformer.norm_out.register_forward_pre_hook(
                lambda module, args: added.append(args[0] - entering[-1])
            ),
        ]
        latents(pipe, num_steps=10)
        for hook in hooks:
            hook.remove()
    assert fv.receipt.cache is not None
    assert fv.receipt.cache.schedule == {"cond": "C" * 10, "uncond": schedule}
    kept = torch.zeros(())
    for letter, cond, uncond in zip(schedule, added[::2], added[1::2], strict=True):
        if letter == "C":
            kept = uncond - cond
        else:
            torch.testing.assert_close(uncond, cond + kept, rtol=1e-5, atol=1e-5)


def test_it_is_nearer_than_reusing_what_the_branch_itself_added() -> None:
    from fv_taylorseer import TaylorSeer

    pipe = small_pipeline()
    plain = latents(pipe, num_steps=20)
    with attach(pipe, cache=GuidanceSkip(2, 0.1)):
        follows = latents(pipe, num_steps=20)
    with attach(pipe, cache=TaylorSeer(2, order=0, warm_up=2)):
        reuses = latents(pipe, num_steps=20)
    assert (follows - plain).norm() < (reuses - plain).norm()


def test_every_second_step_is_skipped_unless_told_otherwise() -> None:
    pipe = small_pipeline()
    with attach(pipe, cache="GUIDANCESKIP") as fv:
        latents(pipe, num_steps=10)
    assert fv.receipt.cache is not None
    assert fv.receipt.cache.schedule["uncond"] == "CCFCFCFCFC"


def test_without_guidance_nothing_is_skipped() -> None:
    pipe = small_pipeline()
    plain = latents(pipe, guidance_scale=1.0)
    with attach(pipe, cache=GuidanceSkip()):
        assert torch.equal(latents(pipe, guidance_scale=1.0), plain)


def one_pass(fv: Attachment, branch: str) -> None:
    transformer = fv.pipe.transformer
    with fv.run(1), transformer.cache_context(branch), torch.no_grad():
        transformer(torch.randn(2, 16, 3, 4, 6), torch.tensor([500.0, 500.0]), torch.randn(2, 4, 16))


@pytest.mark.parametrize(
    ("branch", "message"),
    [
        ("cond_uncond", "'cond' and 'uncond' one after the other; WanPipeline runs 'cond_uncond'"),
        ("uncond", "'cond' before 'uncond' in every step"),
    ],
)
def test_branches_that_come_otherwise_are_refused(branch: str, message: str) -> None:
    with (
        attach(small_pipeline(), cache=GuidanceSkip()) as fv,
        pytest.raises(PolicyMismatchError, match=f"GUIDANCESKIP needs a pipeline that runs {message}"),
    ):
        one_pass(fv, branch)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"interval": 0}, "interval is '0': input should be greater than or equal to 1"),
        ({"after": 2}, "after is '2': input should be less than or equal to 1"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        GuidanceSkip(**settings)
