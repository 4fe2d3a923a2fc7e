"""One command starts everything on one machine, and the demo that uses it as any client would.

Starts processes and hands them settings; it holds no logic of the service.
"""
