"""The contract's messages and services, generated from protos/ and never edited."""
