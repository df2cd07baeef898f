"""ONNX files as layered JAX networks: the reader, the operators by group, and the network."""
