"""HTTP: a folder per resource with its endpoints, schemas and service.

What lives here: requests, answers, problem documents, authentication, and the rules a request must
meet. What does not: states, tables and blobs (`store`), and anything that needs torch.
"""
