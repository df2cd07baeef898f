"""Fetches a weights file from the model hub and verifies it against the SHA-256 that the hub reports."""

import re
from pathlib import Path

from ..weights_convert import files

_SHA256 = re.compile(r"[0-9a-f]{64}")


def fetch(repository: str, file: str, folder: Path) -> Path:
    """Download a file of a repository on the model hub.

    Args:
        repository: `owner/name`.
        file: The file's path in it.
        folder: Where to put it.

    Returns:
        The downloaded file.

    Raises:
        ConnectionError: If the hub cannot be reached or does not deliver the whole file.
        ValueError: If the hub reports no SHA-256 for the file, or the file has another.
        ImportError: If `huggingface_hub` is missing.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError(
            'fetching weights needs huggingface_hub: pip install "jaxai-explain[hub]"'
        ) from error
    # The library's transport has changed between its versions, and its errors with it.
    try:
        url = huggingface_hub.hf_hub_url(repository, file)
        metadata = huggingface_hub.get_hf_file_metadata(url)
    except Exception as error:
        raise ConnectionError(f"cannot reach {repository}: {_first_line(error)}") from error
    digest = metadata.etag or ""
    if not _SHA256.fullmatch(digest):
        raise ValueError(f"the hub reports no SHA-256 for {file} of {repository}; got {digest!r}")
    try:
        # The commit is pinned, so that the file is the one whose digest was reported.
        path = huggingface_hub.hf_hub_download(
            repository, file, revision=metadata.commit_hash, local_dir=folder
        )
    except Exception as error:
        raise ConnectionError(
            f"{file} of {repository} was not delivered whole: {_first_line(error)}"
        ) from error
    found = files.sha256(Path(path))
    if found != digest:
        raise ValueError(f"{file} of {repository} is damaged: the hub reports SHA-256 {digest}; got {found}")
    return Path(path)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
