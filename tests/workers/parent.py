"""A process that imports what workers need, and then forks itself for each worker that is asked for at a socket."""

from __future__ import annotations

import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
from pathlib import Path

IMPORTED = (
    "torch._dynamo", "transformers.models.clip.modeling_clip", "peft", "diffusers.models.unets.unet_2d_condition",
    "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion", "open_clip", "lpips", "torchvision", "pydantic",
)  # fmt: skip
"""Neither Ray nor raymap: they read the environment and the installed packages, which differ from worker to worker."""


def become(worker: socket.socket) -> None:
    """Run what is asked for as if this process had been started for it, with its files, environment and folder."""
    os.setpgid(0, 0)  # Ray kills the whole process group of a worker that is gone
    _, files, _, _ = socket.recv_fds(worker, 1, 3)
    with worker.makefile("rb") as asked:
        argv, folder, environment = json.loads(asked.read())
    for own, given in enumerate(files):
        os.dup2(given, own)
        os.close(given)
    own_paths = {str(Path.cwd()), *os.environ.get("PYTHONPATH", "").split(os.pathsep)}
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    given_paths = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [os.path.dirname(argv[0]), *given_paths, *(path for path in sys.path if path not in own_paths)]
    sys.argv = argv
    runpy.run_path(argv[0], run_name="__main__")


def main() -> None:
    """Listen at the path that is given, until stdin ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no fork is waited for
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(sys.argv[1])
        listener.listen(64)
        imported = False
        while listener in select.select([listener, sys.stdin], [], [])[0]:
            for name in () if imported else IMPORTED:
                importlib.import_module(name)
            imported = True
            worker, _ = listener.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                listener.close()
                become(worker)
                return
            worker.close()


if __name__ == "__main__":
    main()
