"""torch's groups, which all attachments of a process share: one by one they would leave threads and connections behind.

They are not left when an attachment ends, as a process that is done would then cut off one that still receives.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch.distributed as dist


class Group:
    """One of torch's groups, held here alone: gloo closes its connections when nobody holds it any more.

    A process that leaves its groups is noticed by the others at once, rather than when their time is up.
    """

    def __init__(self, group: Any) -> None:
        self.group = group

    def leave(self) -> None:
        group, self.group = self.group, None
        if group is not None:
            with suppress(Exception):  # it may be broken already
                dist.destroy_process_group(group)


@dataclass
class HeldGroups:
    """What a process has made of the group that torch.distributed began with.

    Attributes:
        control: all processes, over gloo.
        of_degrees: by sequence, guidance, and whether tensors go through the CPU: groups by name, and that of the
            sequence over gloo.
    """

    control: Group | None = None
    of_degrees: dict[tuple[int, int, bool], tuple[dict[str, Group], Group | None]] = field(default_factory=dict)

    @classmethod
    def of_process(cls) -> HeldGroups:
        """Those of this process; others where torch.distributed was ended and initialised again."""
        return _held.setdefault(dist.group.WORLD, cls())

    def leave(self) -> None:
        """Leave all; they are made anew when they are needed."""
        of_degrees, self.of_degrees = list(self.of_degrees.values()), {}
        groups = [group for by_name, control in of_degrees for group in (*by_name.values(), control)]
        control, self.control = self.control, None
        for group in (*groups, control):
            if group is not None:
                group.leave()


_held: WeakKeyDictionary[Any, HeldGroups] = WeakKeyDictionary()
