"""The answer to a request for an event that the page does not have, which gradio looks up unguarded.

It would answer with status 500 and a traceback in the log, as if the fault were ours.
"""

from gradio.route_utils import FnIndexInferError
from starlette.requests import Request
from starlette.responses import JSONResponse

_CALLS = ("/run/", "/api/", "/call/", "/queue/join")
"""The routes that look an event up by a number or a name, and catch what the event itself raises."""


async def not_there(request: Request, error: Exception) -> JSONResponse:
    """Status 404 and one sentence; raises the error again where it comes from elsewhere."""
    if not any(route in request.url.path for route in _CALLS):
        raise error
    said = "This page has no such event; /gradio_api/info lists those that scripts can call."
    return JSONResponse({"error": said}, 404)


HANDLERS = {KeyError: not_there, FnIndexInferError: not_there}
"""For the server: which error is answered by what."""
