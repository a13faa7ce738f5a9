"""What Schemathesis cannot know of the OpenAPI document's images: an image to send where one is wanted."""

import schemathesis
from hypothesis import strategies

from serving.bench.pictures import images

schemathesis.openapi.media_type("image/*", strategies.sampled_from([images()[kind] for kind in ("grey", "png", "gif", "webp")]))
