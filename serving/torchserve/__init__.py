"""TorchServe as a child process: how it is started and ended, and how batches get to it."""
