"""Fold a prompt into one ONNX file, check it, and run it without torch."""
