"""Uploads by clients that others wrote, across cuts: the entry of `make clients`.

Makes a temporary folder with a virtual environment of the pinned clients in it, runs suite.py there, and removes the
folder again, however it ends. Nothing but the standard library is needed here.
Not here: what is tried, and what counts as a fault (suite.py).
"""

import argparse
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import venv

HERE = pathlib.Path(__file__).resolve().parent
STOP_TIMEOUT_S = 120
BYTES_MIN = 256 << 20


def main():
    """Prepares, runs and cleans up; the exit code is the suite's, or 2 when there is not enough space."""
    arguments = read_arguments()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="holdfast-clients-"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        needed = space_needed(arguments.bytes)
        free = shutil.disk_usage(folder).free
        if free < needed:
            print(f"needs {needed >> 20} MiB in {folder.parent} and finds {free >> 20}: "
                  "set TMPDIR to another folder, or give --bytes for less", file=sys.stderr)
            return 2
        python = install(folder)
        command = [python, "-B", HERE / "suite.py", "--holdfast", arguments.holdfast.resolve(),
                   "--bytes", str(arguments.bytes), "--folder", folder]
        return run(command)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def read_arguments():
    """What the caller wants."""
    parser = argparse.ArgumentParser(description="Uploads by foreign clients across cuts.")
    parser.add_argument("--holdfast", type=pathlib.Path, required=True, help="the server binary")
    parser.add_argument("--bytes", type=int, default=1 << 30, help="length of each large content")
    arguments = parser.parse_args()
    if arguments.bytes < BYTES_MIN:
        parser.error(f"--bytes takes {BYTES_MIN} at least, so that every cut lies in a chunk of its own")
    return arguments


def space_needed(size):
    """Bytes of disk: 4.25 contents in profile dev, 1.5 for each byte, the source, and journals and logs."""
    return 8 * size + (2 << 30)


def install(folder):
    """Makes the environment and installs the pinned clients from the machine's own registry; its Python."""
    print("installing the clients of requirements.txt", flush=True)
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-cache-dir"]
    subprocess.run([*pip, "--requirement", HERE / "requirements.txt"], check=True, timeout=600)
    return python


def run(command):
    """Runs the suite to its end. It hears of an interrupt from here alone, once, so that it can end what it started."""
    suite = subprocess.Popen(command, start_new_session=True)
    try:
        return suite.wait()
    except BaseException:
        suite.terminate()
        try:
            suite.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            suite.kill()
            suite.wait()
        raise


if __name__ == "__main__":
    sys.exit(main())
