"""Description of an NVIDIA H100 SXM (80 GB) for XLA's GPU compiler: a GpuTargetConfigProto, as text.

The figures are from the H100 data sheet and the Hopper tuning guide (compute capability 9.0); rates are operations per
clock.
"""

from __future__ import annotations

_TENSOR_GHZ = 1.83
"""Clock in GHz; 132 multiprocessors x 4 tensor cores x 512 fused multiply-adds give the data sheet's 989 TFLOP/s."""
_GHZ = 1.98
_FLOAT16, _FLOAT32, _FLOAT64, _BFLOAT16, _INT8, _INT32, _FLOAT8 = 10, 11, 12, 16, 2, 4, 20
"""Numbers of XLA's element types."""


def _rates(of: dict[int, tuple[int, int, float]]) -> str:
    """`of`: element type -> (units a multiprocessor, operations a clock, GHz)."""
    return " ".join(
        f"rate_infos {{ key: {key} value {{ clock_rate_ghz: {ghz} units_per_core: {units} ops_per_clock: {ops} }} }}"
        for key, (units, ops, ghz) in of.items()
    )


_SCALAR = _rates(
    {
        _INT32: (64, 1, _GHZ),
        _FLOAT16: (128, 2, _GHZ),
        _FLOAT32: (128, 1, _GHZ),
        _FLOAT64: (64, 1, _GHZ),
        _BFLOAT16: (128, 2, _GHZ),
    }
)
_MATRIX = _rates(
    {
        _INT8: (4, 1024, _TENSOR_GHZ),
        _FLOAT16: (4, 512, _TENSOR_GHZ),
        _FLOAT32: (4, 256, _TENSOR_GHZ),
        _FLOAT64: (4, 32, _GHZ),
        _BFLOAT16: (4, 512, _TENSOR_GHZ),
        _FLOAT8: (4, 1024, _TENSOR_GHZ),
    }
)
H100 = f"""
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448
  core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: {_GHZ} device_memory_size: 84929347584
  cuda_compute_capability {{ major: 9 }}
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  scalar_unit_description {{ {_SCALAR} }}
  matrix_unit_description {{ {_MATRIX} }}
  device_interconnect_info {{ active_links: 18 }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 12 }}
runtime_version {{ major: 13 minor: 0 patch: 0 }}
device_description_str: "NVIDIA H100 80GB HBM3"
"""
