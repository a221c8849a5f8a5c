"""Small language models that think before they talk, against controls that do not."""

import os

# Without this, MKL may round a matrix product by where in memory it lies, on some processors: a seed's bits
# would then depend on the seeds next to it. MKL reads it at its first product.
os.environ.setdefault("MKL_CBWR", "AUTO")
