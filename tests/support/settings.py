"""Settings of the backends, made before one is imported."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Gradients are compared in float64, which JAX has only on request.
os.environ.setdefault("JAX_ENABLE_X64", "1")
# A test compiles for longer than it runs; a third of the time is LLVM's optimization.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
)
