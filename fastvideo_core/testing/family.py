"""The suite that proves a model family: subclass it, build a tiny pipeline, and run pytest."""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from itertools import product
from typing import Any, ClassVar

import pytest
import torch

from fastvideo_core.contract.attention import AttentionBackend
from fastvideo_core.contract.caching import CachePolicy, Signal
from fastvideo_core.contract.model import ModelFamily
from fastvideo_core.discovery.plugins import Plugins
from fastvideo_core.engine.attachment import Attachment
from fastvideo_core.engine.diffusers_bridge import blocks_can_be_compiled
from fastvideo_core.engine.families import transformers_of
from fastvideo_core.testing.family_calls import check_calls
from fastvideo_core.testing.family_runs import (
    PADDING,
    Pass,
    Scripted,
    Watching,
    arguments_of,
    attending_blocks,
    beside_video,
    computed,
    each_of,
    inputs_kept,
    last_of,
    modules_after,
    run_bare,
    video_tokens,
    watched,
)
from fastvideo_core.testing.family_shared import SharedRuns
from fastvideo_core.testing.fixed import Suite, counting
from fastvideo_core.testing.subject import discovered, installed_plugins


class ModelFamilySuite(Suite):
    """Tests of one model family, on a tiny pipeline with random weights that the subclass builds.

    Subclass it in a test file:

        class TestMyFamily(ModelFamilySuite):
            family = MY_FAMILY
            size = (9, 32, 48)

            def build(self):
                return MyPipeline(...)  # a few layers, heads of 16; the same weights each time

            def generate(self, pipe):
                return pipe(..., num_frames=9, height=32, width=48, num_inference_steps=4, output_type="latent").frames

    Height and width should differ, and so should their tokens. A run that several tests look at is made once for the
    class, so neither `build` nor `generate` may depend on which test asks. A subclass may add tests; replacing one of
    these is a TypeError when the class is made.
    """

    family: ClassVar[ModelFamily]

    size: ClassVar[tuple[int, int, int]]
    """Frames, height and width of what `generate` makes."""

    latent_axes: ClassVar[tuple[int, int]] = (3, 4)
    """Where the latents that the transformer is called with have height and width, if they have five axes."""

    cuts_text: ClassVar[bool] = False
    """Whether the model masks padded text, which the core cuts away instead: then equal up to rounding, not in bits."""

    @abstractmethod
    def build(self) -> Any:
        """A pipeline on the CPU in float32, with the same weights each time."""

    @abstractmethod
    def generate(self, pipe: Any) -> torch.Tensor:
        """Latents of at least three steps, the same ones each time."""

    def generate_compiled(self, pipe: Any) -> torch.Tensor:
        """What compiled blocks are tried with. Default: `generate`; less where torch cannot compile all of it."""
        return self.generate(pipe)

    def test_discovery_does_not_import_torch(self) -> None:
        if self.family not in installed_plugins().families():
            pytest.skip("the family is an object, not an installed plugin's")
        found = discovered()
        assert self.family.transformer in found.families
        assert not {"torch", "diffusers", "transformers"} & found.modules

    def test_it_computes_what_the_bare_pipeline_does(self) -> None:
        pipe = self._pipeline()
        bare = self.generate(pipe)
        assert torch.equal(self.generate(pipe), bare), "`generate` makes something else each time"
        with self._attached(pipe):
            self._assert_same(self.generate(pipe), bare)
        assert torch.equal(self.generate(pipe), bare), "the pipeline is not as it was before it was attached"

    def test_every_attention_of_the_blocks_is_named(self) -> None:
        transformer = self._transformer(self._pipeline())
        sites = {id(site.module) for site in self.family.attentions(transformer)}
        for block in attending_blocks(transformer, self.family):
            for name, module in block.named_modules():
                assert id(module) in sites or not hasattr(module, "processor"), (
                    f"{name} of a {type(block).__name__} has an attention processor, and is none of the family's"
                )
        for site in self.family.attentions(transformer):
            assert site.role in self.family.roles, f"{site.role} is none of the family's roles"

    def test_attentions_run_in_the_order_in_which_they_are_named(self) -> None:
        transformer = self._transformer(self._pipeline())
        named = [site.module for site in self.family.attentions(transformer)]
        ran: list[Any] = []
        hooks = [module.register_forward_pre_hook(lambda module, args: ran.append(module)) for module in named]
        run_bare(transformer, self.family, self._runs.arguments[0])
        for hook in hooks:
            hook.remove()
        assert ran == named, "the attentions run in another order than the family names them in"

    def test_calls_are_what_the_family_says(self) -> None:
        backend, _ = self._runs.attending
        attention = list(self.family.attentions(self._transformer(self._pipeline())))
        assert set(backend.runs) == set(self.family.roles), "roles of the family were never called"
        check_calls(backend, self.family)
        assert sum(run.num_layers for run in backend.runs.values()) == len(attention)

    def test_the_grid_is_that_of_the_model(self) -> None:
        pipe, seen = self._pipeline(), Pass()
        transformer = self._transformer(pipe)
        with watched(transformer, self.family, seen), self._attached(pipe) as attachment:
            arguments = arguments_of(transformer, partial(self.generate, pipe))[-1]
        grid, latents = attachment.receipt.token_grid, arguments["hidden_states"].shape
        layout, entered = self.family.token_layout(transformer.config, arguments), seen.entered[0].shape[1]
        beside = beside_video(self.family, layout, seen)
        assert grid == layout.grid
        assert video_tokens(layout) + beside == entered, (
            f"the grid is {grid} and {beside} tokens are beside it, the blocks see {entered} tokens"
        )
        if len(latents) == 5:
            sizes = [latents[axis] for axis in self.latent_axes]
            for axis, tokens, size in zip(("height", "width"), grid[1:], sizes, strict=True):
                assert size % tokens == 0, f"the grid has {tokens} tokens along the {axis}, the latents are {size}"
        autoencoder = getattr(pipe, "vae", None)
        geometry = self.family.geometry(transformer.config, autoencoder.config if autoencoder else {})
        assert geometry.grid(*self.size) == grid, f"`geometry` says {geometry.grid(*self.size)} for {self.size}"

    def test_a_policy_that_never_skips_changes_no_bit(self) -> None:
        plain = self._runs.plain
        for signal in sorted(self.family.all_signals):
            read = self._runs.reading(signal)
            assert torch.equal(read.latents, plain), f"reading {signal} changes what the model computes"

    def test_a_policy_that_always_reuses_adds_the_residual(self) -> None:
        pipe = self._pipeline()
        transformer = self._transformer(pipe)
        after = modules_after(transformer, self.family, self._runs.arguments[0])
        with inputs_kept(after) as given, self._attached(pipe, policy=Scripted(reuses=True)) as attachment:
            arguments = arguments_of(transformer, lambda: self.generate(pipe))
        branches = len(attachment.receipt.steps_computed)
        found = [one[-len(arguments) :] for one in given]
        passes = [run_bare(transformer, self.family, one) for one in arguments]
        assert len(passes) >= 3 * branches, "`generate` has fewer than three steps"
        for number, stream in product(range(branches, len(passes)), range(len(after))):
            computed_last, handed_on = passes[number % branches], found[stream][number]
            residual = computed_last.left[stream] - computed_last.entered[stream]
            expected = passes[number].entered[stream] + residual
            torch.testing.assert_close(handed_on, last_of(expected, handed_on.shape))

    def test_signals_are_what_the_model_computes(self) -> None:
        for signal in sorted(self.family.all_signals - {Signal.NONE}):
            read = self._runs.reading(signal)
            assert len(read.signals) == len(read.arguments)
            for given, found in zip(self._runs.passes(read.arguments), read.signals, strict=True):
                for real in computed(self.family, signal, given):
                    one = each_of(real, found).reshape(-1, found.numel())  # one for each of the batch, or of all
                    expected = found.float().reshape(1, -1).expand_as(one)
                    assert torch.allclose(one, expected, rtol=1e-5, atol=1e-6), (
                        f"{signal} is not what the model computes: {found.flatten()[:4]} instead of {one[0, :4]}"
                    )

    def test_time_signals_change_with_the_timestep(self) -> None:
        transformer = self._transformer(self._pipeline())
        given = self._runs.arguments[0]
        other = {**given, "timestep": given["timestep"] * 0.5}
        first, second = (run_bare(transformer, self.family, one) for one in (given, other))
        assert torch.equal(first.entered[0], second.entered[0]), "the video tokens depend on the timestep"
        for signal, position in self.family.block_signals.items():
            assert not torch.equal(first.entered[position], second.entered[position]), (
                f"{signal} is the argument {position} of a block, which does not depend on the timestep"
            )

    def test_tokens_in_another_order_give_the_same(self) -> None:
        pipe, (_, plain) = self._pipeline(), self._runs.attending
        backend = Watching(ordered=True)
        with self._attached(pipe, backend):
            ordered = self.generate(pipe)
        own = [call for call in backend.calls if call.role.among_video]
        if own[0].layout.fixed:
            assert torch.equal(ordered, plain)
            assert not any(call.layout.ordered for call in own)
            return
        assert all(call.query[1] >= video_tokens(call.layout) + PADDING for call in own), "the order had no effect"
        torch.testing.assert_close(ordered, plain, rtol=1e-3, atol=1e-3)

    def test_compiled_blocks_give_the_same(self) -> None:
        pipe, graphs = self._pipeline(), list[Any]()
        kinds = getattr(self._transformer(pipe), "_repeated_blocks", None)
        if not kinds and not blocks_can_be_compiled(self.family.transformer):
            pytest.skip(f"{self.family.transformer} does not say which of its blocks repeat")
        with self._attached(pipe) as attachment:
            eager, calls = self.generate_compiled(pipe), _calls(attachment)
        torch.compiler.reset()
        self._transformer(pipe).compile_repeated_blocks(fullgraph=True, backend=counting(graphs))
        with self._attached(pipe) as attachment:
            compiled = self.generate_compiled(pipe)
        torch.compiler.reset()
        assert _calls(attachment) == calls
        assert attachment.receipt.compiled
        assert graphs
        torch.testing.assert_close(compiled, eager, rtol=1e-3, atol=1e-3)

    @property
    def _runs(self) -> SharedRuns:
        return SharedRuns.of(self)

    def _pipeline(self) -> Any:
        pipe = self.build()
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def _transformer(self, pipe: Any) -> Any:
        return next(transformers_of(pipe, self.family))[1]

    def _attached(
        self, pipe: Any, backend: str | AttentionBackend = "TORCH_SDPA", policy: CachePolicy | None = None
    ) -> Attachment:
        return Attachment(pipe, backend, None, policy, None, self._plugins())

    def _plugins(self) -> Plugins:
        return installed_plugins().with_family(self.family, "the suite's `family`")

    def _assert_same(self, found: torch.Tensor, expected: torch.Tensor) -> None:
        if self.cuts_text:
            torch.testing.assert_close(found, expected)
        else:
            assert torch.equal(found, expected), "attached, with TORCH_SDPA, it computes something else than alone"


def _calls(attachment: Attachment) -> dict[str, int]:
    return {role: one.calls for role, one in attachment.receipt.attention.items()}
