"""Accelerate leaves FSDP out on CPUs, though torch's FSDP2 runs there over gloo. On the path of a process, this lets it in."""

from typing import Any

import accelerate.state as state
from accelerate.utils import DistributedType

_plain = state.AcceleratorState.__init__


def _with_fsdp(self: Any, *args: Any, **kwargs: Any) -> None:
    _plain(self, *args, **kwargs)
    plugin = kwargs.get("fsdp_plugin")
    if plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, plugin
        if self.mixed_precision != "no":
            plugin.set_mixed_precision(self.mixed_precision)


state.AcceleratorState.__init__ = _with_fsdp  # type: ignore[method-assign]
