import pytest
import torch
from fv_neighborhood import Neighborhood

from fastvideo_core import attach
from fastvideo_core.errors import BackendMismatchError, InputError
from fastvideo_core.testing import AttentionBackendSuite
from fastvideo_core.testing.cases import Case
from fastvideo_core.testing.streams import latents, small_pipeline

FRAMES_SEEN = 1


@pytest.fixture(autouse=True)
def _no_dense_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTVIDEO_NEIGHBORHOOD_FRAMES", str(FRAMES_SEEN))
    monkeypatch.setenv("FASTVIDEO_NEIGHBORHOOD_DENSE_LAYERS", "0")
    monkeypatch.setenv("FASTVIDEO_NEIGHBORHOOD_DENSE", "0")


class TestNeighborhood(AttentionBackendSuite):
    backend = Neighborhood()

    def visible(self, case: Case) -> torch.Tensor:
        frame = torch.arange(case.queries) // (case.grid[1] * case.grid[2])
        behind = frame[:, None] - frame
        return (behind >= 0) & (behind <= FRAMES_SEEN)


def test_the_first_steps_and_layers_stay_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = small_pipeline()
    plain = latents(pipe, num_steps=8)
    monkeypatch.setenv("FASTVIDEO_NEIGHBORHOOD_DENSE", "0.5")
    monkeypatch.setenv("FASTVIDEO_NEIGHBORHOOD_DENSE_LAYERS", "1")
    with attach(pipe, attention_backend="NEIGHBORHOOD") as fv:
        changed = latents(pipe, num_steps=8)
    details = fv.receipt.attention["SELF"].details
    assert details == {"frames_seen": FRAMES_SEEN, "calls_with_a_window": 4 * 2 * 2}
    assert not torch.equal(changed, plain)
    monkeypatch.setenv("FASTVIDEO_NEIGHBORHOOD_DENSE", "1")
    with attach(pipe, attention_backend="NEIGHBORHOOD"):
        torch.testing.assert_close(latents(pipe, num_steps=8), plain)


def test_what_it_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = small_pipeline()
    with (
        attach(pipe, attention_backend="NEIGHBORHOOD"),
        pytest.raises(BackendMismatchError, match="more than one frame"),
    ):
        latents(pipe, num_steps=2, num_frames=1)
    monkeypatch.setenv("FASTVIDEO_NEIGHBORHOOD_FRAMES", "many")
    with pytest.raises(
        InputError, match="FASTVIDEO_NEIGHBORHOOD_FRAMES is 'many', it must be a number from 0 to 10000"
    ):
        attach(pipe, attention_backend="NEIGHBORHOOD")
