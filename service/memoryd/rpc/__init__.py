"""The contract's handlers: between protobuf's messages and the domain's records."""
