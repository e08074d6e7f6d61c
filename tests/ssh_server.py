"""A server of SSH on this machine that takes one key and runs what it is told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncssh


async def _pass_on(source: asyncio.StreamReader | None, sink: Any) -> None:
    assert source is not None
    while piece := await source.read(2**16):
        with contextlib.suppress(OSError):  # who has asked has gone
            sink.write(piece)


async def _run(process: asyncssh.SSHServerProcess[bytes]) -> None:
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_shell(
        process.command or "", stdout=pipe, stderr=pipe, start_new_session=True
    )
    streams = ((child.stdout, process.stdout), (child.stderr, process.stderr))
    said = asyncio.gather(*(_pass_on(*each) for each in streams))
    left = asyncio.ensure_future(process.wait_closed())
    await asyncio.wait([said, left], return_when=asyncio.FIRST_COMPLETED)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    await said
    process.exit(await child.wait())
    await left


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[dict[str, Any]]:
    """Serve while the block runs; yield the options by which to connect."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(folder / "key")
    key.write_public_key(folder / "key.pub")
    options: dict[str, Any] = {"username": "me", "client_keys": [str(folder / "key")]}
    loop, ready = asyncio.new_event_loop(), threading.Event()
    closing = asyncio.Event()

    async def serve() -> None:
        server = await asyncssh.listen(
            "127.0.0.1",
            0,
            server_host_keys=[key],
            authorized_client_keys=str(folder / "key.pub"),
            process_factory=_run,
            encoding=None,
        )
        options["port"] = server.get_port()
        ready.set()
        await closing.wait()
        server.close()
        await server.wait_closed()
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))

    thread = threading.Thread(target=loop.run_until_complete, args=[serve()], daemon=True)
    thread.start()
    assert ready.wait(10)
    public = key.export_public_key().decode()
    (folder / "known").write_text(f"[127.0.0.1]:{options['port']} {public}")
    try:
        yield {**options, "known_hosts": str(folder / "known")}
    finally:
        loop.call_soon_threadsafe(closing.set)
        thread.join(10)
        loop.close()
