"""The peers, one module each, run by an interpreter that has PyTorch and never imports jaxai."""
