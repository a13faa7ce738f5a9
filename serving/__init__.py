"""The handler, the archive, TorchServe as a child process, and the front door."""
