"""hocket against its peers: same machine, same weights, turn by turn."""
