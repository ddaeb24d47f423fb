"""Starts a page on this machine on which photographs are filled with a brush, and opens the browser.

    python -m pconv_jax.web                 # drop photographs on the page
    python -m pconv_jax.web photos/         # go through a folder; results go to photos/filled/

The photographs stay on this machine: the server listens on 127.0.0.1 alone, and its address has a random token.
"""

import contextlib
import os
import re
import secrets
import socket
import sys
import tempfile
import threading
import webbrowser

from absl import flags

from pconv_jax import command_line, errors
from pconv_jax.inpainting import filling, inpainter
from pconv_jax.reading import files
from pconv_jax.training import compilation_cache
from pconv_jax.web import app, folder, networks, security, serving, session

PORT = 8733
TOKEN = "PCONV_WEB_TOKEN"  # An environment variable: unlike flags, other users of the machine cannot see it.
_PATIENCE = 10  # Seconds that a tile in work may take when the server ends.


def define_flags(flag_values: flags.FlagValues):
    """Adds the flags of `python -m pconv_jax.web`."""
    flags.DEFINE_integer(
        "port", None, f"Port; 0 is any free one. Default: {PORT}, or any free one.", 0, 65535, flag_values=flag_values
    )
    flags.DEFINE_string(
        "host", "127.0.0.1", "Address to listen on; others than loopback need --allow-remote.", flag_values
    )
    flags.DEFINE_bool("allow_remote", False, "Lets other machines use the page, unencrypted.", flag_values)
    flags.DEFINE_bool("browser", True, "Open the browser.", flag_values)
    flags.DEFINE_multi_string("weights", [], "Weights file to offer; may be repeated.", flag_values)
    flags.DEFINE_multi_string("run", [], "Run directory to offer; may be repeated.", flag_values)
    flags.DEFINE_bool("soft_mask", False, "Soft rims of holes, for --weights trained with them.", flag_values)
    flags.DEFINE_integer(
        "tile",
        inpainter.TILE,
        "Largest side in pixels that is computed at once; less needs less memory.",
        1,
        flag_values=flag_values,
    )
    flags.DEFINE_integer(
        "max_pixels", filling.MAX_PIXELS, "Larger photographs are refused.", 1, flag_values=flag_values
    )
    flags.DEFINE_bool("compilation_cache", True, "Keep compiled programs in the user's cache directory.", flag_values)


def main(flag_values: flags.FlagValues, path: str | None = None):
    """Loads the networks and serves until Ctrl-C.

    Args:
      flag_values: parsed flags of `define_flags`.
      path: the folder of photographs to go through, if any.

    Raises:
      UserError, OSError: a flag or a path does not fit, or a network cannot be loaded.
    """
    host = flag_values.host.strip("[]")
    if not security.is_loopback(host) and not flag_values.allow_remote:
        raise errors.UserError(
            f"--host={host} lets other machines use the page: whoever knows the address with its token sees the "
            "photographs and fills this machine's disk and time, and the network can read along, as nothing is "
            "encrypted. Give --allow-remote to do it nevertheless, or reach 127.0.0.1 through ssh -L"
        )
    token = os.environ.get(TOKEN) or secrets.token_urlsafe(32)
    if not re.fullmatch(r"[\w-]{32,}", token, re.ASCII):
        raise errors.UserError(f"{TOKEN} needs 32 or more letters, digits, - and _: leave it unset for a random one")
    source = None if path is None else folder.Folder(path)
    with serving.bind(host, flag_values.port, PORT) as listener:
        compilation_cache.enable(flag_values.compilation_cache)
        choices = networks.load(flag_values.weights, flag_values.run, flag_values.tile, soft_mask=flag_values.soft_mask)
        address = f"http://{_shown(host)}:{listener.getsockname()[1]}/{token}/"
        with tempfile.TemporaryDirectory(prefix="pconv_web_", ignore_cleanup_errors=True) as temporary:
            held = session.Session(choices, temporary, flag_values.max_pixels, source)
            try:
                serving.run(
                    security.Guard(app.create(held), token, host),
                    listener,
                    lambda: _announce(address, path, flag_values.browser, not security.is_loopback(host)),
                    lambda: held.queue.stop(0),
                )
            finally:
                ended = held.queue.stop(_PATIENCE)
    print("stopped", flush=True)
    if not ended:  # A tile takes longer; the interpreter would wait for it.
        os._exit(0)


def _announce(address, path, browser, remote):
    """Prints the address, and opens the browser without waiting for it."""
    others = f"From other machines, put the name of this one ({socket.gethostname()}) in its place. " if remote else ""
    results = "" if path is None else f"; results go to {files.printable(os.path.join(path, folder.RESULTS))}"
    print(
        f"{address}\nOpen this address in a browser of this machine{results}. {others}Ctrl-C ends the server.",
        flush=True,
    )
    if browser:
        threading.Thread(target=_open, args=(address,), daemon=True).start()


def _open(address):
    """Opens a browser with windows; one in the terminal would hide the address."""
    with contextlib.suppress(webbrowser.Error):
        browser = webbrowser.get()
        if type(browser) is not webbrowser.GenericBrowser:  # This class is that of browsers in the terminal.
            browser.open(address)


def _shown(host):
    """Returns a host as this machine's browser can name it: loopback where the server is bound to all addresses."""
    if host in ("0.0.0.0", "::"):
        return "127.0.0.1" if host == "0.0.0.0" else "[::1]"
    return f"[{host}]" if ":" in host else host


def _spelled(argv):
    """Returns the command line with flags as absl spells them, from --allow-remote and --no-browser."""
    return [{"--allow-remote": "--allow_remote", "--no-browser": "--nobrowser"}.get(word, word) for word in argv]


if __name__ == "__main__":
    command_line.run(main, define_flags, optional=1, interrupted="stopped", argv=_spelled(sys.argv))
