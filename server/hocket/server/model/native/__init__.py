"""The forward pass in C++: written for one kind of processor, checked against the torch path.

`source/` holds the kernels, `build.py` compiles them once, `library.py` calls them, `packing.py`
and `decoder.py` bring a model into their form, `gate.py` decides whether int8 may be used. Where
there is no compiler or another processor, the torch path does the same work more slowly. Engine
thread.
"""
