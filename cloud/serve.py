"""The web process: serves the socket it is handed as descriptor 0, or binds `MICA_BIND` (host:port) itself."""

import gc
import os
import socket
import stat
import sys

import uvicorn

from cloud.settings.environment import setting


def listening_socket() -> socket.socket:
    """The socket on descriptor 0 when a supervisor handed one down, else a new one on `MICA_BIND`."""
    if stat.S_ISSOCK(os.fstat(0).st_mode):
        handed = socket.socket(fileno=os.dup(0))
    else:
        host, _, port = setting("bind", "127.0.0.1:8000").rpartition(":")
        handed = socket.create_server((host, int(port)), backlog=2048, reuse_port=True)
    # Accepted sockets inherit it; uvicorn itself does not set it on sockets it is handed.
    handed.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    handed.setblocking(False)
    return handed


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "cloud.settings")
    from cloud.asgi import application

    config = uvicorn.Config(
        application,
        log_config=None,
        access_log=False,
        ws="websockets",
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=5,
        proxy_headers=False,
        ssl_certfile=setting("tls_certificate") or None,
        ssl_keyfile=setting("tls_key") or None,
    )
    gc.collect()
    gc.freeze()
    server = uvicorn.Server(config)
    server.run(sockets=[listening_socket()])
    sys.exit(0)


if __name__ == "__main__":
    main()
