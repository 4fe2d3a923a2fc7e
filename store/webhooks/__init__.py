"""Webhooks by the Standard Webhooks specification (standardwebhooks.com), without the network.

What is announced, where it may go, how it is signed, and when a delivery is due. Nothing here
opens a connection: `worker.webhooks` does.
"""
