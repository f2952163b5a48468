"""The service over HTTP/1.1: the Connect protocol and gRPC-Web, beside gRPC.

Each call goes through the same pipeline as gRPC's own. Where the port is off, none of it is loaded.
"""
