"""The demo: a client that compresses a small residual network through the embedded stack.

`digits_resnet8.safetensors` is the checkpoint it uploads; `train_checkpoint` made it.
"""
