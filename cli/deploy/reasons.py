"""Why pods are not ready, in words: from what the cluster says about them, its events, and the last lines of their logs.

Of a container that ended, the cluster keeps those lines itself, because the chart asks for that (`terminationMessagePolicy`): its log may
be gone when it is asked for.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

NO_IMAGE = {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"}
NEVER = {"ErrImageNeverPull", "InvalidImageName", "CreateContainerConfigError", "ImagePullBackOff"}
MAX_RESTARTS = 2  # the first one may be somebody else's fault
ITS_OWN_FAULT = 2  # exit code of `slipway serve` for what it was given: an archive, an option
MAX_EVENTS = 3
LOG_LINES = 5

Log = Callable[[str, str], list[str]]


def ready(pod: dict[str, Any]) -> bool:
    """Whether the cluster sends it requests."""
    return any(item["type"] == "Ready" and item["status"] == "True" for item in pod.get("status", {}).get("conditions", ()))


def hopeless(pod: dict[str, Any]) -> bool:
    """Whether waiting longer would not make it ready."""
    return any(
        _waiting(status).get("reason") in NEVER
        or status.get("restartCount", 0) >= MAX_RESTARTS
        or _ended(status).get("exitCode") == ITS_OWN_FAULT
        for status in _containers(pod)
    )


def reasons(pods: Sequence[dict[str, Any]], events: Sequence[dict[str, Any]], log: Log) -> list[str]:
    """A line or more for each pod that is not ready, then what the cluster warned of besides; the same line once.

    `log` gives the last lines of a container of a pod. What the cluster says of a pod is told only where the pod has no line of its own.
    """
    of_pods = {pod["metadata"]["name"]: list(_of_pod(pod, log)) for pod in pods if not ready(pod)}
    silent = {name for name, lines in of_pods.items() if not lines}
    told = [event for event in events if event["involvedObject"]["kind"] != "Pod" or event["involvedObject"]["name"] in silent]
    warned = [f"{event['involvedObject']['kind'].lower()} {event['involvedObject']['name']}: {event['message'].strip()}" for event in told]
    return list(dict.fromkeys([*(line for lines in of_pods.values() for line in lines), *warned[-MAX_EVENTS:]]))


def _of_pod(pod: dict[str, Any], log: Log) -> Iterator[str]:
    name = pod["metadata"]["name"]
    for condition in pod["status"].get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            yield f"{name} finds no node: {condition.get('message', 'no reason given')}"
    for status in _containers(pod):
        waiting = _waiting(status)
        ended = _ended(status)
        if waiting.get("reason") in NO_IMAGE:
            yield f"{name}: the image {status['image']} cannot be had: {waiting.get('message', waiting['reason'])}"
        elif ended.get("reason") == "OOMKilled":
            yield f"{name}: {status['name']} needed more memory than its limit (OOMKilled): raise resources.limits.memory"
        elif ended.get("exitCode"):
            yield f"{name}: {status['name']} ended with exit code {ended['exitCode']}; its last words:"
            yield from _last(ended.get("message", "").splitlines())
        elif waiting.get("message"):
            yield f"{name}: {waiting['message']}"
        elif "running" in status.get("state", {}) and not status.get("ready"):
            yield f"{name}: {status['name']} runs, but is not ready; its last words:"
            yield from _last(log(name, status["name"]))


def _last(lines: Sequence[str]) -> Iterator[str]:
    return (f"  | {line}" for line in lines[-LOG_LINES:])


def _containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    status = pod.get("status", {})
    return [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]


def _ended(status: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = status.get("state", {}).get("terminated") or status.get("lastState", {}).get("terminated") or {}
    return found


def _waiting(status: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = status.get("state", {}).get("waiting", {})
    return found
