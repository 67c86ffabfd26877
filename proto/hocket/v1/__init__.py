"""The wire contract, version 1: generated from `proto/hocket/v1/*.proto`."""
