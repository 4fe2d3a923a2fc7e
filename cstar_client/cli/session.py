"""What every command is given: the service, and where to write."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Annotated, Any

import typer
from rich.console import Console

from cstar_client.cli.exits import Exit, errors_told
from cstar_client.client import Client
from cstar_client.configuration import resolve
from cstar_client.documents import Job
from cstar_client.errors import CstarError
from cstar_client.retrying import Failure, Retries

LATEST = "latest"
PIPE_WIDTH = 1000  # nothing is cut for a terminal that is not there
MESSAGE_WAIT_S = 1.0  # a shorter pause before the next attempt is not worth a line


class Session:
    """One run of a command: documents go to stdout, all else to stderr."""

    def __init__(
        self, url: str | None, api_key: str | None, *, patience_s: float, as_json: bool
    ) -> None:
        self._url, self._api_key, self._patience_s = url, api_key, patience_s
        self.as_json = as_json
        self.err = Console(stderr=True, highlight=False)
        width = None if sys.stdout.isatty() else PIPE_WIDTH
        self.out = Console(highlight=False, width=width)

    @cached_property
    def client(self) -> Client:
        """The service; raises ConfigurationError with the next step."""
        access = resolve(self._url, self._api_key)
        retries = Retries(total_s=self._patience_s)
        return Client(access.url, access.api_key, retries=retries, on_retry=self._tell_retry)

    def job(self, reference: str) -> Job:
        """Return a job by its id, or the newest one for `latest`."""
        if reference != LATEST:
            return self.client.jobs.get(reference)
        newest = next(self.client.jobs.list(), None)
        if newest is None:
            raise CstarError(
                "there is no job yet; `cstar jobs submit --help` shows how to make one"
            )
        return newest

    def say(self, text: str) -> None:
        """Tell people something."""
        self.err.print(text, markup=False, soft_wrap=True)

    def write(self, document: Any, show: Callable[[Console], None] | str) -> None:
        """Answer with a document: as JSON, or as `show` shows it."""
        if self.as_json:
            print(json.dumps(document), flush=True)
        elif isinstance(show, str):
            self.out.print(show, markup=False, soft_wrap=True)
        else:
            show(self.out)

    def close(self) -> None:
        """Close the connections there are."""
        if "client" in self.__dict__:
            self.client.close()

    def _tell_retry(self, failure: Failure, pause_s: float) -> None:
        if pause_s >= MESSAGE_WAIT_S:
            limit = f"for {self._patience_s:g} s at most (--patience)"
            self.say(f"{failure}; trying again in {pause_s:.0f} s, {limit}")


Url = Annotated[str | None, typer.Option("--url", help="Where the service is (CSTAR_URL)")]
ApiKey = Annotated[
    str | None,
    typer.Option("--api-key", help="The key (CSTAR_API_KEY, where other users cannot see it)"),
]
Patience = Annotated[
    float,
    typer.Option(
        "--patience",
        min=0,
        metavar="SECONDS",
        help="For how long to try again what gets no answer (no longer than --timeout)",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Answer with JSON on stdout")]
_SHARED: Mapping[str, tuple[Any, Any]] = {
    "url": (Url, None),
    "api_key": (ApiKey, None),
    "patience": (Patience, Retries.total_s),
    "as_json": (AsJson, False),
}
Body = Callable[..., Exit | None]


def command(
    group: typer.Typer, name: str, *, examples: Iterable[str] = ()
) -> Callable[[Body], Body]:
    """Register a function as a command; its first argument is the Session.

    The command also takes the options that all share, and ends with what the function returns.
    """

    def register(body: Body) -> Body:
        own = list(inspect.signature(body, eval_str=True).parameters.values())[1:]
        shared = [
            inspect.Parameter(
                option, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind
            )
            for option, (kind, default) in _SHARED.items()
        ]

        def run(**given: Any) -> None:
            patience_s, timeout_s = given.pop("patience"), given.get("timeout")
            session = Session(
                given.pop("url"),
                given.pop("api_key"),
                patience_s=patience_s if timeout_s is None else min(patience_s, timeout_s),
                as_json=given.pop("as_json"),
            )
            with errors_told(session.err, as_json=session.as_json):
                try:
                    code = body(session, **given)
                finally:
                    session.close()
            raise typer.Exit(code or Exit.OK)

        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters = [one.replace(kind=keyword) for one in own] + shared
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {}
        shown = "".join(f"    {example}\n" for example in examples)
        group.command(name, help=f"{inspect.getdoc(body)}\n\n{shown}")(run)
        return body

    return register
