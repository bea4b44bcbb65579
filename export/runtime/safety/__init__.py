"""Refuse a graph that is unsafe to open, before ONNX Runtime sees it."""
