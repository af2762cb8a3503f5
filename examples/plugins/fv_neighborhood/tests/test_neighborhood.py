import pytest
import torch
from fv_neighborhood import Neighborhood

from fastvideo_core import Role, Run, TokenLayout, attach
from fastvideo_core.errors import BackendMismatchError, InputError
from fastvideo_core.testing import AttentionBackendSuite, Case, Inputs, latents, small_pipeline

FRAMES_SEEN = 1


class TestNeighborhood(AttentionBackendSuite):
    backend = "NEIGHBORHOOD"
    settings = {"frames": FRAMES_SEEN, "dense": 0, "dense_layers": 0}  # noqa: RUF012  # an author would not annotate it

    def visible(self, case: Case, inputs: Inputs) -> torch.Tensor:
        frame = torch.arange(case.queries) // (case.grid[1] * case.grid[2])
        behind = frame[:, None] - frame
        return (behind >= 0) & (behind <= FRAMES_SEEN)


def test_the_first_steps_and_layers_stay_dense() -> None:
    pipe = small_pipeline()
    plain = latents(pipe, num_steps=8)
    with attach(pipe, attention_backend="NEIGHBORHOOD", attention_config={"frames": 1, "dense": 0.5}) as fv:
        changed = latents(pipe, num_steps=8)
    served = fv.receipt.attention["SELF"]
    assert served.details == {"calls_with_a_window": 4 * 3 * 2}
    assert served.settings == {"frames": 1, "dense": 0.5, "dense_layers": 1}
    assert not torch.equal(changed, plain)
    with attach(pipe, attention_backend="NEIGHBORHOOD", attention_config={"dense": 1}):
        torch.testing.assert_close(latents(pipe, num_steps=8), plain)


def test_tokens_beside_the_grid_are_refused() -> None:
    layout = TokenLayout((3, 2, 2), text_before=4)
    run = Run("LTX-Video", Role.SELF, layout, 4, 2, 2, 16, "float32", "cpu")
    with pytest.raises(BackendMismatchError, match="4 of this video's tokens stand beside its grid"):
        Neighborhood().start_run(run)


def test_what_it_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = small_pipeline()
    with (
        attach(pipe, attention_backend="NEIGHBORHOOD"),
        pytest.raises(BackendMismatchError, match="more than one frame"),
    ):
        latents(pipe, num_steps=2, num_frames=1)
    monkeypatch.setenv("FASTVIDEO_NEIGHBORHOOD_FRAMES", "many")
    with pytest.raises(InputError, match="FASTVIDEO_NEIGHBORHOOD_FRAMES is 'many': input should be a valid integer"):
        attach(pipe, attention_backend="NEIGHBORHOOD")
