"""Where and in which precision to compute."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Device:
    """A torch device with the precision in which it is fastest, and why, in words."""

    name: str
    precision: torch.dtype
    reason: str

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Mixed precision where the hardware gains from it, else nothing."""
        if self.precision == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.name, dtype=self.precision)


def choose() -> Device:
    """CUDA when there is one; bfloat16 where the hardware multiplies it natively."""
    if torch.cuda.is_available():
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Device("cuda", torch.bfloat16, f"{torch.cuda.get_device_name()}, bfloat16")
        return Device("cuda", torch.float16, f"{torch.cuda.get_device_name()}, float16 with loss scaling")
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    fast = next((flag for flag in ("amx_bf16", "avx512_bf16") if flag in flags), None)
    threads = torch.get_num_threads()
    if fast:
        return Device("cpu", torch.bfloat16, f"CPU, {threads} threads, bfloat16 ({fast})")
    return Device("cpu", torch.float32, f"CPU, {threads} threads, float32 (no native bfloat16)")
