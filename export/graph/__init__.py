"""Write a CLIP's image tower and a prompt's constants as one ONNX graph."""
