"""The subcommands of `hocket` that need nothing but the client. Main thread.

Each module adds its parsers with `add_parser(s)`, and names a function that takes the parsed
arguments and returns an exit code. Errors of the client pass through; `__main__` prints them.
"""
