"""``torch.compile`` for the emulated device: Inductor's Triton code as it would run on a GPU, by Triton's interpreter.

It takes ``TRITON_INTERPRET=1`` and a second a kernel. What is written, fused and kept between the passes is what a
Hopper GPU would get, but for what patterns of attention written out and of products to pad would change; speed, launch
configurations and a GPU's rounding are not.
"""

from __future__ import annotations

import os
import types

from tests.emulated.device import NAME

HOPPER = types.SimpleNamespace(
    name=NAME, major=9, minor=0, gcnArchName="", total_memory=0, multi_processor_count=132,
    regs_per_multiprocessor=65536, max_threads_per_multi_processor=2048, max_threads_per_block=1024, warp_size=32,
    shared_memory_per_block=48 << 10, shared_memory_per_block_optin=227 << 10, L2_cache_size=50 << 20,
)  # fmt: skip
"""What torch tells of the device."""


def install(torch) -> None:
    """Answer what the compiler asks C++, at once; the rest before something is compiled for the first time."""
    for name in ("_cuda_getDevice", "_cuda_exchangeDevice", "_cuda_maybeExchangeDevice", "_cuda_getCurrentRawStream"):
        setattr(torch._C, name, lambda *args: 0)
    torch._C._cuda_setDevice = lambda device: None
    torch.cuda.get_device_properties = lambda *args, **kwargs: HOPPER
    torch.cuda._exchange_device = lambda device: 0
    torch.cuda._maybe_exchange_device = lambda device: 0  # another function: the compiler knows them apart
    torch.cuda.get_rng_state = lambda *args: torch.get_rng_state()
    torch.cuda.set_rng_state = lambda state, *args: torch.set_rng_state(state)
    own, ready = torch.compile, []

    def compile(*args, **kwargs):
        if not ready and os.environ.get("TRITON_INTERPRET") == "1":
            ready.append(True)
            _prepare(torch)
        return own(*args, **kwargs)

    torch.compile = compile


def _prepare(torch) -> None:
    """Inductor without what it measures, keeps on disk or asks of hardware."""
    import triton
    from torch._inductor import config
    from torch._inductor.fx_passes import fuse_attention, misc_patterns, pad_mm
    from torch._inductor.runtime import triton_helpers
    from triton.backends import Backend, backends

    from tests.emulated.authors import Driver

    config.force_disable_caches, config.compile_threads = True, 1
    # patterns for attention written out and for products to pad, found by tracing examples on the device
    fuse_attention._sfdp_init = pad_mm._pad_mm_init = misc_patterns._misc_patterns_init = lambda *args, **kwargs: None
    torch._C._dynamo.guards._empty_strided_cuda = lambda size, stride, dtype: torch.empty_strided(
        size, stride, dtype=dtype, device="cuda"
    )
    backends["nvidia"] = Backend(compiler=backends["nvidia"].compiler, driver=Driver)
    triton.runtime.driver.set_active(Driver())
    triton_helpers.libdevice = _libdevice()


def _libdevice():
    """Functions of CUDA's library that generated kernels call, of which the interpreter has none. (Its own are replaced
    while a kernel runs, so they are looked up then.)
    """
    import triton.language as tl

    def log1p(x):
        u = 1 + x  # Kahan's: what 1 + x has lost is made up for
        return tl.where(u == 1, x, tl.math.log(u) * x / tl.where(u == 1, 1.0, u - 1))

    def expm1(x):
        u = tl.math.exp(x)
        near = (u - 1) * x / tl.where(u == 1, 1.0, tl.math.log(u))
        return tl.where(u == 1, x, tl.where(tl.abs(x) < 1, near, u - 1))

    return types.SimpleNamespace(
        exp=lambda x: tl.math.exp(x),
        expm1=expm1,
        log1p=log1p,
        sqrt=lambda x: tl.math.sqrt(x),
        rsqrt=lambda x: tl.math.rsqrt(x),
        erf=lambda x: tl.math.erf(x),
        tanh=lambda x: 1 - 2 / (tl.math.exp(2 * x) + 1),
        isnan=lambda x: x != x,
    )
