"""Reads what arrives with a request: bodies of limited size, and parameters of the query."""

from starlette import exceptions, requests

from pconv_jax import errors


async def save(request: requests.Request, path: str, most: int):
    """Writes the body of a request to a file, as it arrives.

    Args:
      request: the request.
      path: the file.
      most: largest number of bytes.

    Raises:
      HTTPException: there are more; status 413.
      ClientDisconnect: the client went away.
      OSError: the file cannot be written.
    """
    with open(path, "wb") as file:
        async for part in _parts(request, most):
            file.write(part)


async def read(request: requests.Request, most: int) -> bytes:
    """Returns the body of a request.

    Args:
      request: the request.
      most: largest number of bytes.

    Raises:
      HTTPException: there are more; status 413.
      ClientDisconnect: the client went away.
    """
    return b"".join([part async for part in _parts(request, most)])


def number(request: requests.Request, name: str, default: int, most: int, least: int = 0) -> int:
    """Returns a whole number of the query or path.

    Args:
      request: the request.
      name: name of the parameter.
      default: its value where it is absent.
      most: its largest value.
      least: its smallest value.

    Raises:
      UserError: it is no number, or out of range.
    """
    text = request.path_params.get(name, request.query_params.get(name, str(default)))
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and least <= int(text) <= most):
        raise errors.UserError(f"{name} is {text[:40]!r}; needs a whole number of {least} to {most}")
    return int(text)


def rectangle(request: requests.Request, width: int, height: int) -> tuple[int, int, int, int] | None:
    """Returns `(x, y, width, height)` of the query within an image, or None if none of them is given.

    Args:
      request: the request.
      width: width of the image in pixels.
      height: height of the image in pixels.

    Raises:
      UserError: it reaches beyond the image.
    """
    if not {"x", "y", "width", "height"} & request.query_params.keys():
        return None
    x, y = number(request, "x", 0, width - 1), number(request, "y", 0, height - 1)
    return x, y, number(request, "width", width - x, width - x, 1), number(request, "height", height - y, height - y, 1)


async def _parts(request, most):
    """Yields the parts of a body, which may claim a wrong length or none."""
    refusal = exceptions.HTTPException(413, f"the file has more than {most} bytes, which is the most")
    claimed = request.headers.get("content-length", "")
    if claimed.isdecimal() and int(claimed) > most:
        raise refusal
    total = 0
    async for part in request.stream():
        total += len(part)
        if total > most:
            raise refusal
        yield part
