"""The server on an NVIDIA GPU: on the real one, where there is one, else on a GPU that
is simulated on the CPU build of torch."""
