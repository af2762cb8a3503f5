"""Whether calls of attention are what a family said that they would be."""

from __future__ import annotations

from collections import defaultdict

from fastvideo_core.contract.attention import Role
from fastvideo_core.testing.family_runs import Watching, video_tokens


def check_calls(backend: Watching) -> None:
    """Fail unless each call has the tokens of its layout, the heads announced, and every layer its turn."""
    for call in backend.calls:
        where, video = f"{call.role} attention of layer {call.layer}", video_tokens(call.layout)
        text = 0 if call.role is Role.CROSS else call.layout.text_before + call.layout.text_after
        assert call.query[1] == video + text, (
            f"{where} has {call.query[1]} queries for {video} video and {text} other tokens"
        )
        if call.role is Role.JOINT:
            assert video < call.key[1] <= video + text, f"{where} has {call.key[1]} keys for {video} + {text} tokens"
        if call.role is Role.SELF:
            assert call.key[1] == video + text, f"{where} has {call.key[1]} keys for {video} + {text} tokens"
        if call.role is Role.CROSS:
            assert call.key[1] != video, f"{where} has as many keys as there are video tokens"
        run = backend.runs[call.role]
        assert tuple(call.query[2:]) == (run.num_heads, run.head_dim), f"{where} has other heads than announced"
    layers: dict[tuple[Role, int, str], list[int]] = defaultdict(list)
    for call in backend.calls:
        layers[call.role, call.step, call.branch].append(call.layer)
    for (role, step, branch), found in layers.items():
        assert sorted(set(found)) == list(range(backend.runs[role].num_layers)), (
            f"{role} attention of step {step}, branch {branch!r} came from layers {sorted(set(found))}"
        )
