"""Checkpoints in object stores: where tensorstore finds a bucket, and what orbax must be told of S3.

Orbax 0.12 writes to ``gs://`` by tensorstore's own driver, and takes every other path for one of the file system. Tensorstore
has a driver for S3 as well. :func:`let_orbax_write_to_buckets` gives orbax that, in the three functions in which it asks
whether a path is in a bucket and where.
"""

import functools
import os
import re
from typing import Any

from ssl_jax.core.bucket import COMMIT, BucketPath


def kvstore_of(path: str) -> dict[str, Any]:
    """Return the spec by which tensorstore opens what is below a path of a bucket. It holds no credentials.

    Args:
      path: ``gs://bucket/name`` or ``s3://bucket/name``; one slash after the colon is enough, as orbax normalises paths.

    >>> kvstore_of("gs://runs/first/checkpoints/10/")
    {'driver': 'gcs', 'bucket': 'runs', 'path': 'first/checkpoints/10/'}
    """
    scheme, bucket, key = re.fullmatch(r"(gs|s3):/+([^/]+)/*(.*)", path).groups()  # type: ignore[union-attr]
    if scheme == "gs":
        return {
            "driver": os.environ.get("TENSORSTORE_GCS_BACKEND", "gcs"),
            "bucket": bucket,
            "path": key,
        }
    return {"driver": "s3", "bucket": bucket, "path": key, **_endpoint()}


@functools.cache
def _endpoint() -> dict[str, Any]:
    """Where S3 is, as the AWS libraries find it: from the environment or the profile; empty for Amazon's own."""
    import botocore.session

    session = botocore.session.get_session()
    client = session.create_client("s3", region_name=session.get_config_variable("region") or "us-east-1")
    # Otherwise tensorstore asks everything that could have credentials, and says of each that it has none.
    by = {"aws_credentials": {"type": "environment"}} if "AWS_ACCESS_KEY_ID" in os.environ else {}
    given = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    url = str(client.meta.endpoint_url)
    if not given and re.fullmatch(r"https://s3[.\w-]*\.amazonaws\.com(\.cn)?", url):
        return by
    return {**by, "endpoint": url, "aws_region": client.meta.region_name}


class CheckpointPath(BucketPath):
    """A path in a bucket as orbax is given it: what is committed has been read back."""

    def write_text(
        self, data: str, encoding: str | None = None, errors: str | None = None, newline: str | None = None
    ) -> int:
        """Write; the object that says that a directory of arrays is whole, only if its index has all of them."""
        if self.name == COMMIT:
            from ssl_jax.train.storage import MANIFEST, require_complete

            if (self.parent / MANIFEST).is_dir():
                require_complete(self.parent)
        return super().write_text(data, encoding, errors, newline)


@functools.cache
def let_orbax_write_to_buckets() -> None:
    """Let orbax use tensorstore's driver for S3, and commit there by a last object as it does on ``gs://``.

    Raises:
      ImportError: this version of orbax has other functions.
    """
    from orbax.checkpoint._src.path import gcs_utils
    from orbax.checkpoint._src.serialization import tensorstore_utils

    names = [(gcs_utils, "is_gcs_path"), (gcs_utils, "get_kvstore_for_gcs")]
    names.append((tensorstore_utils, "_use_gcs_driver"))
    for module, name in names:
        if not hasattr(module, name):
            raise ImportError(f"orbax has no {name} any more: s3:// needs orbax-checkpoint 0.12")
    gcs_utils.is_gcs_path = lambda path: path.as_posix().startswith(("gs://", "s3://"))
    gcs_utils.get_kvstore_for_gcs = kvstore_of
    tensorstore_utils._use_gcs_driver = lambda directory: bool(re.match(r"(gs|s3):/", directory))
