"""`python -m cstar_client` is `cstar`."""

from cstar_client.cli.app import main

main()
