"""What the extra `dataset` brings, loaded when it is used."""

from typing import Any


def tensorstore() -> Any:
    """Return TensorStore.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        import tensorstore
    except ImportError as error:
        raise ImportError("data sets need TensorStore: pip install 'jaxai-explain[dataset]'") from error
    return tensorstore


def arrow() -> Any:
    """Return PyArrow.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise ImportError("data sets need PyArrow: pip install 'jaxai-explain[dataset]'") from error
    return pyarrow


def parquet() -> Any:
    """Return `pyarrow.parquet`.

    Raises:
        ImportError: If it is not installed.
    """
    arrow()
    import pyarrow.parquet

    return pyarrow.parquet
