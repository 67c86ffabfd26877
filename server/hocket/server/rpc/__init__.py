"""The porch: gRPC and protobuf live here, on the loop's thread, and nowhere below."""
