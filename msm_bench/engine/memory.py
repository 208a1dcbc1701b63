"""How much memory the engine may fill, and telling that it ran out."""

from pathlib import Path

import psutil  # type: ignore[import-untyped]
import torch

# What is left for activations, logits and everybody else on the machine.
_SHARE = {"cuda": 0.8, "mps": 0.5, "cpu": 0.5}


def free_bytes(device: torch.device) -> int:
    """Memory that could be allocated now on a device."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    return min(int(psutil.virtual_memory().available), _left_in_container())


def cache_budget(device: torch.device) -> int:
    """Bytes that keys and values may take, with the weights already loaded."""
    return int(free_bytes(device) * _SHARE.get(device.type, 0.5))


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory ran out; torch has a class for it on CUDA only."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in ("out of memory", "can't allocate"))
    )


def _left_in_container() -> int:
    """What a control group leaves this process; the machine's whole memory without a limit."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text().strip()
        return int(limit) - int((folder / "memory.current").read_text())
    except (OSError, ValueError):
        return int(psutil.virtual_memory().total)
