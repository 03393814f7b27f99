"""Stands for a worker that is a fork of another process: asks for it, and lives as long. Loads next to nothing."""

import json
import os
import socket
import sys

with socket.socket(socket.AF_UNIX) as parent:
    parent.connect(sys.argv[1])
    socket.send_fds(parent, [b"\0"], [0, 1, 2])
    parent.sendall(json.dumps([sys.argv[2:], os.getcwd(), dict(os.environ)]).encode())
    parent.shutdown(socket.SHUT_WR)
    parent.recv(1)  # nothing, once the fork has ended
