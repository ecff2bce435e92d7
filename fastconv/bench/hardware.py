"""What the vendor says about known GPUs, the roofline, and occupancy. Leads and predictions; measured ceilings replace them."""

from __future__ import annotations

import dataclasses

from fastconv.bench.names import known


@dataclasses.dataclass(frozen=True)
class Gpu:
    """Datasheet figures of the SXM part. TFLOP/s are dense."""

    name: str
    capability: int
    multiprocessors: int
    tflops: dict[str, float]  # by precision
    gbytes_per_second: float
    l2_megabytes: int
    shared_kilobytes: int  # of a multiprocessor
    shared_kilobytes_per_block: int
    registers: int = 65536  # of a multiprocessor, 32 bits each
    threads: int = 2048
    blocks: int = 32

    def ceilings(self) -> Ceilings:
        return Ceilings(f"{self.name} datasheet", self.gbytes_per_second * 1e9, self.peak_flops(), measured=False)

    def peak_flops(self) -> dict[str, float]:
        return {precision: value * 1e12 for precision, value in self.tflops.items()}


_A100_TFLOPS = {"float64": 19.5, "float32": 19.5, "tf32": 156, "float16": 312, "bfloat16": 312}
_H100_TFLOPS = {"float64": 67, "float32": 67, "tf32": 494.7, "float16": 989.4, "bfloat16": 989.4}

#: By the name that people type.
GPUS = {
    "A100": Gpu("A100", 80, 108, _A100_TFLOPS, 2039, 40, 164, 163),
    "H100": Gpu("H100", 90, 132, _H100_TFLOPS, 3350, 50, 228, 227),
    "H200": Gpu("H200", 90, 132, _H100_TFLOPS, 4800, 60, 228, 227),
}


def gpu_named(name: str) -> Gpu:
    return GPUS[known("gpu", name.upper(), GPUS)]


def gpu_like(device_name: str, capability: int) -> Gpu:
    """The known GPU whose name is in a device's own name, else the nearest by capability."""
    for name, gpu in GPUS.items():
        if name in device_name:
            return gpu
    return GPUS["H100"] if capability >= 90 else GPUS["A100"]


@dataclasses.dataclass(frozen=True)
class Ceilings:
    """What a device can do at most: bytes per second through its memory, operations per second by precision."""

    source: str
    bytes_per_second: float
    flops_per_second: dict[str, float]
    measured: bool

    def flops_for(self, precision: str) -> float:
        """The peak for a precision; float32's where a precision was not measured.

        A float32 product can be made of three TF32 products on tensor cores (two parts of each factor, without the smallest
        product), which is more than the float32 units do on GPUs that have both: a library's float32 matrix product is no roof.
        """
        plain = self.flops_per_second.get(precision) or self.flops_per_second["float32"]
        return max(plain, self.flops_per_second.get("tf32", 0) / 3) if precision == "float32" else plain

    def roof(self, flops: float, bytes_moved: float, precision: str) -> Roof:
        return Roof(flops / self.flops_for(precision), bytes_moved / self.bytes_per_second)


@dataclasses.dataclass(frozen=True)
class Roof:
    """The least time a piece of work can take: its operations at the peak rate, its bytes at the peak bandwidth."""

    compute_seconds: float
    memory_seconds: float

    @property
    def seconds(self) -> float:
        return max(self.compute_seconds, self.memory_seconds)

    @property
    def bound(self) -> str:
        return "compute" if self.compute_seconds > self.memory_seconds else "memory"


@dataclasses.dataclass(frozen=True)
class Occupancy:
    """How many blocks of a launch a multiprocessor holds, what limits that, and how the grid falls into waves."""

    blocks_per_multiprocessor: int
    limit: str
    threads_share: float  # of the threads a multiprocessor can hold
    waves: float
    last_wave_share: float  # of the last wave's places that are filled


def occupancy(
    gpu: Gpu, *, grid_blocks: int, threads: int, shared_bytes: int, registers: int | None
) -> Occupancy | None:
    """None where not even one block fits. Registers are rounded up as the hardware allots them: 256 a warp."""
    if threads < 1 or threads > 1024 or grid_blocks < 1:
        return None
    warps = -(-threads // 32)
    limits = {"threads": gpu.threads // (warps * 32), "blocks": gpu.blocks}
    # Every block costs 1 KB of shared memory for the system beside its own, allotted in pieces of 128 bytes.
    limits["shared memory"] = gpu.shared_kilobytes * 1024 // (-(-shared_bytes // 128) * 128 + 1024)
    if registers:
        per_warp = -(-registers * 32 // 256) * 256
        limits["registers"] = gpu.registers // (per_warp * warps)
    if shared_bytes > gpu.shared_kilobytes_per_block * 1024:
        return None
    limit = min(limits, key=lambda name: limits[name])
    resident = limits[limit]
    if resident < 1:
        return None
    places = resident * gpu.multiprocessors
    waves = grid_blocks / places
    rest = grid_blocks % places
    return Occupancy(resident, limit, resident * warps * 32 / gpu.threads, waves, (rest or places) / places)
