"""From a file, or a user's own function, to something that can teach.

`torch_images.py` reads and writes torch-layout weights of VGGs and ResNets, `darknet.py` and `darknet_weights.py` the
two files of a Darknet detector, `bert.py` Hugging Face folders, `callable.py` wraps a function of the user's,
`tensors.py` opens files nobody vouches for. Nothing in a file is ever executed, and memory is bounded by its true size.
"""
