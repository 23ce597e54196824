"""The hub as tests hold it: start, stop, break, look."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from ._app import build_app
from ._export import export_git
from ._faults import Faults, LoggedRequest
from ._state import READ_TOKEN, WRITE_TOKEN, HubState, UploadMode
from ._storage import Storage

if TYPE_CHECKING:
    import pytest
    from huggingface_hub import HfApi

_PATIENCE = 20.0


class LoopbackHub:
    """A Hub on 127.0.0.1, at a port of its own that it keeps when it is started again.

    Parameters
    ----------
    root
        Folder of everything it stores. One that another hub wrote is served as it is.
    upload_mode
        How uploads travel: ``"auto"`` as the Hub decides, by .gitattributes and size; ``"regular"`` all inside the
        commit, which works with Xet switched on; ``"lfs"`` all through large file storage.

    Notes
    -----
    Two tokens are known: `token` may do everything, `read_token` sees private repositories but can neither write nor
    pass a gate.
    """

    token = WRITE_TOKEN
    read_token = READ_TOKEN

    def __init__(self, root: Path, *, upload_mode: UploadMode = "auto") -> None:
        self.root = root
        self.storage = Storage(root)
        self._faults = Faults(root / "corrupted")
        self._state = HubState(self.storage, self._faults, upload_mode)
        self._port = 0
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Address, for ``endpoint=`` or ``HF_ENDPOINT``."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def requests(self) -> list[LoggedRequest]:
        """All requests so far, oldest first; clear it to count from here."""
        return self._faults.requests

    def start(self) -> None:
        """Serve until `stop`; return once connections are accepted."""
        if self._server is not None:
            return
        listening = socket.create_server(("127.0.0.1", self._port))
        self._port = listening.getsockname()[1]
        config = uvicorn.Config(
            build_app(self._state),
            lifespan="off",
            ws="none",
            access_log=False,
            log_level="warning",
            timeout_graceful_shutdown=2,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],), name="loopback-hub", daemon=True)
        thread.start()
        deadline = time.monotonic() + _PATIENCE
        while not server.started:
            if not thread.is_alive() or time.monotonic() > deadline:
                raise RuntimeError(f"the loopback hub did not start at {self.url}")
            time.sleep(0.005)
        self._server, self._thread = server, thread

    def stop(self) -> None:
        """Refuse connections from now on; what is stored stays, and `start` serves it again."""
        if self._server is None or self._thread is None:
            return
        self._server.should_exit = True
        self._thread.join(_PATIENCE)
        if self._thread.is_alive():
            raise RuntimeError(f"the loopback hub did not stop at {self.url}")
        self._server = self._thread = None

    def fail_next(self, n: int, status: int) -> None:
        """Answer the next `n` requests, whatever they ask, with `status`."""
        self._faults.fail_next(n, status)

    def corrupt(self, repo_id: str, path: str, *, at: int | None = None) -> None:
        """Serve a file with one byte flipped, at every revision; size and ETag stay those of the true one.

        Parameters
        ----------
        repo_id, path
            The file.
        at
            Which byte, as an index; None means the middle one.
        """
        self._faults.corrupt(repo_id, path, at)

    def heal(self) -> None:
        """Undo `corrupt` and `fail_next`."""
        self._faults.heal()

    def gate(self, repo_id: str) -> None:
        """Let only the owner download from a repository; anyone may still list it."""
        self.storage.update(repo_id, gated=True)

    def export_git(self, repo_id: str, dest: Path) -> Path:
        """Write a repository as a git checkout, with the commit ids and tags served here; see `_export`."""
        return export_git(self.storage, repo_id, dest)

    def api(self, token: str | None = WRITE_TOKEN) -> HfApi:
        """Return a client of this hub; None means anonymous, whatever the machine's own settings are.

        Downloads through it want ``cache_dir=``: the client fixes its default cache when it is imported.
        """
        from huggingface_hub import HfApi

        return HfApi(endpoint=self.url, token=token or False)

    def environment(self, home: Path, *, token: str | None = WRITE_TOKEN) -> dict[str, str]:
        """Return an environment in which a subprocess knows this hub only.

        Parameters
        ----------
        home
            Folder for the client's cache and settings, ``home / "hub"`` being the cache.
        token
            Token it logs in with; None means anonymous.
        """
        inherited = {name: value for name, value in os.environ.items() if not _leads_elsewhere(name)}
        client = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }
        return inherited | client | ({"HF_TOKEN": token} if token else {})

    def patch_client(self, monkeypatch: pytest.MonkeyPatch, home: Path, *, token: str | None = WRITE_TOKEN) -> None:
        """Let the client in this process know this hub only, also where no ``endpoint=`` or ``cache_dir=`` is passed.

        Parameters
        ----------
        monkeypatch
            pytest's fixture, which takes all of it back.
        home, token
            As in `environment`.

        Notes
        -----
        The client reads its environment when it is imported, so its constants are replaced too, and the endpoint of
        the one `HfApi` behind its module-level functions.
        """
        from huggingface_hub import constants, hf_api

        environment = self.environment(home, token=token)
        for name in filter(_leads_elsewhere, list(os.environ)):
            monkeypatch.delenv(name)
        for name in filter(_leads_elsewhere, environment):
            monkeypatch.setenv(name, environment[name])
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", self.url + template)
        monkeypatch.setattr(constants, "ENDPOINT", self.url)
        monkeypatch.setattr(constants, "HF_HOME", str(home))
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(hf_api.api, "endpoint", self.url)


def _leads_elsewhere(name: str) -> bool:
    """Tell the environment variables that decide where the client looks, proxies among them."""
    return name.startswith(("HF_", "HUGGING")) or name.lower().endswith("_proxy")


@contextmanager
def serve(root: Path, *, upload_mode: UploadMode = "auto") -> Iterator[LoopbackHub]:
    """Serve a hub for the length of a ``with`` block.

    Parameters
    ----------
    root
        Folder of everything it stores, created where absent.
    upload_mode
        How uploads travel; see `LoopbackHub`.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder, serve(Path(folder)) as hub:
    ...     _ = hub.api().create_repo("zoo/demo")
    ...     [model.id for model in hub.api().list_models(search="demo")]
    ['zoo/demo']
    """
    hub = LoopbackHub(root, upload_mode=upload_mode)
    hub.start()
    try:
        yield hub
    finally:
        hub.stop()
