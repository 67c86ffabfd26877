"""The forward pass in C++: written for one kind of processor, checked against the torch path.

`source/` holds the kernels, `compiler.py` compiles them, `build.py` finds them compiled or has it
done, `library.py` calls them, `packing.py` and `decoder.py` bring a model into their form,
`gate.py` decides whether int8 may be used. On another processor, or where there is no compiler and
the wheel brought no kernels, the torch path does the same work more slowly. Engine thread.
"""
