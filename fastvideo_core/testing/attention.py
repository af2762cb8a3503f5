"""The suite that proves an attention backend: subclass it, name the backend, and run pytest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch

from fastvideo_core.contract.attention import AttentionBackend, MaskKind, Probe, Role
from fastvideo_core.engine.attention.answers import probe_of
from fastvideo_core.engine.attention.operator import attend
from fastvideo_core.engine.attention.resolve import resolve
from fastvideo_core.errors import BackendMismatchError, BackendUnavailableError
from fastvideo_core.testing.attention_runs import LONG, Layer, LoadedOnce, check_order, stack
from fastvideo_core.testing.cases import (
    Case,
    Inputs,
    cases_for,
    exact_attention,
    make_inputs,
    relative_error,
    some_queries,
    tried_roles,
)
from fastvideo_core.testing.fixed import Suite, counting, no_waiting
from fastvideo_core.testing.subject import UsableBackend, discovered, find, installed, run_python, undeclared

_LAYERS = 5
_LARGE = (5, 9, 13)
_EVERY = 997

_PROBE = """
from fastvideo_core.discovery.plugins import load_plugins
load_plugins().backend({name!r})[0].probe()
"""


class AttentionBackendSuite(Suite):
    """Tests of one attention backend, over the grid of roles, head sizes, dtypes and masks that it declares.

    Subclass it in a test file, and set `backend` to the backend's name, if its plugin is installed, or to an instance:

        class TestMyKernel(AttentionBackendSuite):
            backend = "MY_KERNEL"

    The output is held to float64 attention over the keys that `visible` leaves: up to rounding for a lossless backend,
    up to `Capabilities.tolerance` for another. What needs the kernel is skipped, with the probe's reason, where it
    cannot run. A subclass may add tests; replacing one of these is a TypeError when the class is made.
    """

    backend: ClassVar[str | AttentionBackend]

    settings: ClassVar[Mapping[str, Any]] = {}
    """Settings of the backend, by name."""

    def visible(self, case: Case, inputs: Inputs) -> torch.Tensor | None:
        """What a sparse backend means to attend to: boolean, broadcasts to (batch, heads, queries, keys). None: all.

        For a subclass to replace; tokens are in the model's order, `case.layout` tells their arrangement.

        Args:
            inputs: the tensors of the call, for a backend that chooses by what is in them; must not be changed.
        """
        return None

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make the grid."""
        capabilities = find(self.backend, self.settings)[0].capabilities
        if "case" in metafunc.fixturenames:
            metafunc.parametrize("case", cases_for(capabilities), ids=str)
        if "role" in metafunc.fixturenames:
            metafunc.parametrize("role", tried_roles(capabilities))

    def test_discovery_imports_neither_torch_nor_the_kernel(self) -> None:
        backend, _ = installed(self.backend)
        kernel = probe_of(backend).kernel.partition(".")[0]
        own = type(backend).__module__.partition(".")[0]
        found = discovered()
        assert backend.name in found.backends
        assert not ({"torch", "triton", "diffusers", "transformers", kernel} - {"", own}) & found.modules

    def test_the_probe_answers(self) -> None:
        probe = find(self.backend, self.settings)[0].probe()
        assert isinstance(probe, Probe)
        if probe.available:
            assert probe.kernel, "a probe that is available names its kernel"
            assert probe.version, "a probe that is available names its kernel's version"
        else:
            assert probe.reason, "a probe that is not available says why"
            assert probe.remedy, "a probe that is not available says what to do"

    def test_the_probe_answers_where_there_is_no_gpu(self) -> None:
        backend, _ = installed(self.backend)
        run_python(_PROBE.format(name=backend.name), CUDA_VISIBLE_DEVICES="")

    def test_a_lossy_backend_states_its_tolerance(self) -> None:
        capabilities = find(self.backend, self.settings)[0].capabilities
        assert capabilities.lossless == (capabilities.tolerance is None), (
            "a backend that is not lossless states Capabilities.tolerance, one that is does not"
        )

    def test_output_is_attention(self, case: Case) -> None:
        kernel = UsableBackend.ready(self.backend, self.settings)
        inputs = make_inputs(case, kernel.device)
        result = kernel.run(case)
        assert result.shape == inputs.query.shape
        assert result.dtype is inputs.query.dtype
        self._check(kernel, case, inputs, result)

    def test_a_run_in_its_own_token_order_is_attention(self, role: Role) -> None:
        kernel = UsableBackend.ready(self.backend, self.settings)
        case = replace(kernel.plain(role), grid=_LARGE)
        inputs = make_inputs(case, kernel.device)
        ran = LoadedOnce(kernel, role).run(case, inputs)
        if ran.order is not None:
            check_order(ran.order, case.layout)
        assert ran.output.shape == inputs.query.shape
        self._check(kernel, case, inputs, ran.output)

    def test_a_second_run_is_like_the_first(self, role: Role) -> None:
        kernel = UsableBackend.ready(self.backend, self.settings)
        case = replace(kernel.plain(role), grid=_LARGE)
        loaded = LoadedOnce(kernel, role)
        first, second = loaded.run(case), loaded.run(case)
        assert torch.equal(first.output, second.output)
        assert first.details == second.details, "run_details() tells something else of a second run that is the same"

    def test_the_details_of_a_run_are_plain_values(self, role: Role) -> None:
        kernel = UsableBackend.ready(self.backend, self.settings)
        details = LoadedOnce(kernel, role).run(replace(kernel.plain(role), grid=_LARGE)).details
        assert json.loads(json.dumps(details)) == details, f"the receipt cannot be written with {details}"

    def test_shapes_may_change_and_change_back(self, role: Role) -> None:
        kernel = UsableBackend.ready(self.backend, self.settings)
        loaded = LoadedOnce(kernel, role)
        shapes = ((2, 8, 24), _LARGE, (2, 8, 24), _LARGE)
        outputs = [loaded.run(replace(kernel.plain(role), grid=grid)).output for grid in shapes]
        alone = LoadedOnce(kernel, role).run(replace(kernel.plain(role), grid=shapes[1])).output
        assert torch.equal(outputs[0], outputs[2]), "the first shape gives something else after another one"
        assert torch.equal(outputs[1], outputs[3]), "the second shape gives something else the second time"
        assert torch.equal(outputs[1], alone), "the second shape gives something else than without the first"

    def test_the_call_is_left_as_it_is(self, role: Role) -> None:
        kernel = UsableBackend.ready(self.backend, self.settings)
        loaded = LoadedOnce(kernel, role)
        loaded.run(replace(kernel.plain(role), grid=_LARGE, scale=0.3))
        assert not loaded.changed, f"it writes to the call: {', '.join(sorted(loaded.changed))}"

    def test_a_long_video(self, role: Role) -> None:
        kernel = UsableBackend.ready(self.backend, self.settings)
        if kernel.device != "cuda":
            pytest.skip("33,600 tokens need a GPU")
        case = replace(kernel.plain(role), grid=LONG, heads=1, key_heads=1)
        inputs = make_inputs(case, kernel.device)
        result = LoadedOnce(kernel, role).run(case, inputs).output
        some, visible = some_queries(inputs, self.visible(case, inputs), _EVERY)
        error = relative_error(result[:, ::_EVERY], exact_attention(some, case.scale, visible))
        assert error <= kernel.tolerance(case), self._too_far(kernel, case, error)

    def test_inputs_are_left_alone(self, role: Role) -> None:
        kernel = UsableBackend.ready(self.backend, self.settings)
        inputs = make_inputs(kernel.plain(role), kernel.device)
        tensors = (inputs.query, inputs.key, inputs.value)
        before = [(tensor.clone(), tensor._version) for tensor in tensors]
        kernel.run(kernel.plain(role), tensors)
        for tensor, (copy, written) in zip(tensors, before, strict=True):
            assert tensor._version == written, "an input was written to"
            assert torch.equal(tensor, copy), "an input was changed"

    def test_the_same_call_gives_the_same_bits(self, role: Role) -> None:
        kernel = UsableBackend.ready(self.backend, self.settings)
        case = replace(kernel.plain(role), batch=2, grid=(5, 9, 13))
        first = kernel.run(case)
        for _ in range(3):
            assert torch.equal(kernel.run(case), first)

    def test_no_call_waits_for_the_device(self, role: Role) -> None:
        kernel = UsableBackend.ready(self.backend, self.settings)
        case = kernel.plain(role)
        inputs = make_inputs(case, kernel.device)
        with kernel.forward(case):
            attend(role, inputs.query, inputs.key, inputs.value, None, None)
        with kernel.forward(case), no_waiting(kernel.device):
            for _ in range(_LAYERS):
                attend(role, inputs.query, inputs.key, inputs.value, None, None)

    def test_layers_share_one_whole_graph(self, role: Role) -> None:
        kernel = UsableBackend.ready(self.backend, self.settings)
        case = kernel.plain(role)
        inputs = make_inputs(case, kernel.device)
        graphs: list[Any] = []
        torch.compiler.reset()
        layers = [Layer(role) for _ in range(_LAYERS)]
        with kernel.forward(case):
            eager = stack(layers, inputs.query, inputs.key, inputs.value)
        counted = counting(graphs, "aot_eager")
        for layer in layers:
            layer.compile(fullgraph=True, backend=counted)
        with kernel.forward(case) as forward:
            compiled = stack(layers, inputs.query, inputs.key, inputs.value)
        assert len(graphs) == 1, f"{len(graphs)} graphs for {_LAYERS} layers"
        assert forward.calls(role) == _LAYERS
        assert torch.equal(compiled, eager)

    @pytest.mark.parametrize("what", ["role", "head_dim", "dtype", "device"])
    def test_a_model_that_it_does_not_declare_is_refused(self, what: str) -> None:
        kernel = UsableBackend.ready(self.backend, self.settings)
        need = undeclared(kernel, what)
        if need is None:
            pytest.skip(f"it declares every {what}")
        refused = (BackendMismatchError, BackendUnavailableError) if what == "device" else BackendMismatchError
        with pytest.raises(refused, match=kernel.backend.name):
            resolve(kernel.plugins, kernel.backend.name, "its suite", [need], prepare=lambda backend: None)

    @pytest.mark.parametrize("what", ["arbitrary mask", "grouped heads"])
    def test_a_call_that_it_does_not_declare_is_refused(self, what: str, role: Role) -> None:
        kernel = UsableBackend.ready(self.backend, self.settings)
        can = kernel.backend.capabilities
        if (MaskKind.ARBITRARY in can.masks) if what == "arbitrary mask" else can.grouped_heads:
            pytest.skip(f"it declares {what}")
        case = replace(kernel.plain(role), heads=4, key_heads=4 if what == "arbitrary mask" else 2)
        case = replace(case, mask=MaskKind.ARBITRARY) if what == "arbitrary mask" else case
        with pytest.raises(BackendMismatchError, match=f"{kernel.backend.name} cannot serve {role.value}"):
            kernel.run(case)

    def _check(self, kernel: UsableBackend, case: Case, inputs: Inputs, result: torch.Tensor) -> None:
        """Hold an output against float64 attention over what `visible` leaves."""
        error = relative_error(result, exact_attention(inputs, case.scale, self.visible(case, inputs)))
        assert error <= kernel.tolerance(case), self._too_far(kernel, case, error)

    def _too_far(self, kernel: UsableBackend, case: Case, error: float) -> str:
        problem = f"relative error {error:.2e}, allowed {kernel.tolerance(case):.2e}"
        if type(self).visible is not AttentionBackendSuite.visible:
            return f"{problem}, over the keys that visible(case, inputs) of {type(self).__name__} leaves"
        return f"{problem}, over all keys; a sparse backend replaces visible(case, inputs) of its suite"
