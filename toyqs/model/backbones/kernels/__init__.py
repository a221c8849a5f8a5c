"""Native kernels of a GRU on a CPU, and their functions with a gradient."""

# The width from which recurrent rows are kept for the gradient: to compute them again would cost more time.
KEPT_FROM = 64
