"""Write open_clip's plain VisionTransformer as a small ONNX graph, straight from its tensors."""
