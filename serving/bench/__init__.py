"""Measuring servers on this machine: load, stock TorchServe as a peer, the in-process limit, and what each of them costs."""
