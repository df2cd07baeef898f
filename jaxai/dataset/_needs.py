"""Packages of the extra `dataset`, imported when used."""

import importlib
from typing import Any


def tensorstore() -> Any:
    """Return TensorStore.

    Raises:
        ImportError: If it is not installed.
    """
    return _loaded("tensorstore", "TensorStore")


def arrow() -> Any:
    """Return PyArrow.

    Raises:
        ImportError: If it is not installed.
    """
    return _loaded("pyarrow", "PyArrow")


def parquet() -> Any:
    """Return `pyarrow.parquet`.

    Raises:
        ImportError: If it is not installed.
    """
    return _loaded("pyarrow.parquet", "PyArrow")


def ray() -> Any:
    """Return Ray.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise ImportError("this engine needs Ray: pip install 'jaxai-explain[ray]'") from error


def learn(part: str) -> Any:
    """Return a module of scikit-learn.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        return importlib.import_module(f"sklearn.{part}")
    except ImportError as error:
        raise ImportError("clusters need scikit-learn: pip install 'jaxai-explain[clusters]'") from error


def _loaded(module: str, title: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"data sets need {title}: pip install 'jaxai-explain[dataset]'") from error
