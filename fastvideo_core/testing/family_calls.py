"""Whether calls of attention are what a family said that they would be."""

from __future__ import annotations

from collections import defaultdict

from fastvideo_core.contract.attention import Role
from fastvideo_core.contract.model import ModelFamily
from fastvideo_core.testing.family_runs import Watching, video_tokens


def check_calls(backend: Watching, family: ModelFamily) -> None:
    """Fail unless each call has the tokens of its layout, the heads announced, and every layer its turn."""
    for call in backend.calls:
        where, video = f"{call.role} attention of layer {call.layer}", video_tokens(call.layout)
        text = call.layout.text_before + call.layout.text_after
        queries, keys = call.query[1], call.key[1]
        if call.role is Role.AUDIO:
            assert queries != video + text or keys != video + text, f"{where} is attention of the video to itself"
        elif call.role is not Role.CROSS or queries != video:  # others of the stream need not take part there
            assert queries == video + text, f"{where} has {queries} queries for {video} video and {text} other tokens"
        if call.role is Role.JOINT:
            assert video < keys <= video + text, f"{where} has {keys} keys for {video} + {text} tokens"
        if call.role is Role.SELF:
            assert keys == video + text, f"{where} has {keys} keys for {video} video and {text} other tokens"
        if call.role is Role.CROSS:
            assert keys != video + text, f"{where} has as many keys as there are video tokens"
        run = backend.runs[call.role]
        assert tuple(call.query[2:]) == (run.num_heads, run.head_dim), f"{where} has other heads than announced"
    layers: dict[tuple[Role, int, str], list[int]] = defaultdict(list)
    for call in backend.calls:
        # A pass may leave out attention where the family says so: the engine holds it to that.
        layers[call.role, call.step, "any" if family.idle else call.branch].append(call.layer)
    for (role, step, branch), found in layers.items():
        assert sorted(set(found)) == list(range(backend.runs[role].num_layers)), (
            f"{role} attention of step {step}, branch {branch!r} came from layers {sorted(set(found))}"
        )
