"""What Schemathesis cannot know from the OpenAPI document: images to send where images are wanted, and as many as `shape` says."""

import base64

import schemathesis
from hypothesis import strategies

from serving.bench.pictures import images

SOME = [images()[kind] for kind in ("grey", "png", "gif", "webp")]
schemathesis.openapi.media_type("image/*", strategies.sampled_from(SOME))


@schemathesis.hook
def map_case(context: schemathesis.HookContext, case: schemathesis.Case) -> schemathesis.Case:
    """`case`, with images in it where it is a request for inference that the document calls right."""
    if case.path.endswith("/infer") and case.meta.generation.mode.is_positive:
        tensor = case.body["inputs"][0]
        tensor["data"] = [base64.b64encode(SOME[number % len(SOME)]).decode() for number in range(len(tensor["data"]))]
        tensor["shape"] = [len(tensor["data"])]
    return case
