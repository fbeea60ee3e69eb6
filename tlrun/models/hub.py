"""Whether published weights can be fetched, told in seconds and not after a library's retries."""

from __future__ import annotations

import urllib.request
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlparse

import torch

SECONDS = 5.0  # for one answer; a network that drops what it gets would not answer for minutes


def why_unreachable(url: str) -> str | None:
    """Why the host of `url` does not answer; None if it does, be it by a refusal."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=SECONDS).close()
    except HTTPError:  # some host does not allow HEAD: it is there
        return None
    except OSError as error:  # no name, no route, a certificate, no answer in time
        return str(getattr(error, "reason", error))
    return None


def cached_file(url: str) -> Path:
    """Where torch keeps the file of this address."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
