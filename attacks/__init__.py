"""Threat models, attacks, the engine that runs them, and the probes that doubt them."""

import os

# MKL reads this at the first product of matrices. Without it, on CPUs with AVX-512, a row of a linear layer depends on
# its place among few rows, and a verdict would hang on the order of the samples. Layers of one output may all the same;
# `attacks.steady` asks every model.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
