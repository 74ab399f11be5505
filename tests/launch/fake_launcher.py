"""A launcher like torchrun, without its seconds of imports: each rank gets a session of its own.

``fake_launcher.py NPROC PORT SHIM ARGUMENT...``; ends its ranks on SIGTERM; a rank's failure is left to the supervisor.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time


def main() -> None:
    nproc, port = int(sys.argv[1]), int(sys.argv[2])
    if "FAKE_LAUNCHER_FAILS" in os.environ:
        print("Traceback: \x1b[31mno such module\x1b[0m", file=sys.stderr)
        sys.exit(3)
    listener = socket.socket()
    listener.bind(("127.0.0.1", port))
    ranks = []
    for rank in range(nproc):
        env = dict(os.environ, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(nproc))
        ranks.append(subprocess.Popen([sys.executable, "-u", *sys.argv[3:]], env=env, start_new_session=True))
    signal.signal(signal.SIGTERM, lambda signum, frame: [rank.terminate() for rank in ranks] and None)
    codes = [rank.wait() for rank in ranks]
    while "FAKE_LAUNCHER_LINGERS" in os.environ:
        time.sleep(0.1)
    sys.exit(int(any(codes)))


if __name__ == "__main__":
    main()
