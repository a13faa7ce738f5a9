"""The front door: HTTP, the queue, readiness, keys, metrics and the page."""
