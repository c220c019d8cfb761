"""The Inngest SDK protocol as data: what goes over the wire in either direction, without any I/O.

The serve adapters speak it as an SDK, the server's HTTP driver as a server; both use the same structs and rules.
"""
