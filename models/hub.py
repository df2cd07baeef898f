"""Fetches a weights file from the model hub and verifies it against the SHA-256 that the hub reports."""

import re
from pathlib import Path

from .._files import shown
from ..weights_convert import files

_SHA256 = re.compile(r"[0-9a-f]{64}")


def fetch(repository: str, file: str, folder: Path, *, most: int) -> Path:
    """Download a file of a repository on the model hub.

    Args:
        repository: `owner/name`.
        file: The file's path in it.
        folder: Where to put it.
        most: How many bytes it may have.

    Returns:
        The downloaded file.

    Raises:
        ConnectionError: If the hub cannot be reached or does not deliver the whole file.
        ValueError: If the hub reports no SHA-256 for the file or too large a size, or the file has another
            SHA-256.
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
        raise ValueError(f"the hub reports no SHA-256 for {file} of {repository}; got {shown(digest)}")
    if not metadata.size or metadata.size > most:
        raise ValueError(f"{file} of {repository} has {metadata.size} bytes; expected at most {most}")
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
    return shown(lines[0], 200) if lines else type(error).__name__
