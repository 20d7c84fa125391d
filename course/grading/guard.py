"""Starts the kernel that runs a student's notebook: python guard.py LIMITS CONNECTION_FILE

LIMITS is JSON: `memory` (bytes), `seconds` of processor time, `printed` (characters a cell may
print) and `user` (an account without rights, or none). The account is taken on before any line of
the student's runs, so its code reads only what that account may read.
"""

import json
import os
import sys


def drop_rights(user: str) -> None:
    """Become another user for good. Needs root."""
    import pwd

    account = pwd.getpwnam(user)
    os.setgroups([])
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)
    os.environ["HOME"] = os.environ["IPYTHONDIR"] = os.environ["MPLCONFIGDIR"] = os.getcwd()


def limit(memory: int, seconds: int) -> None:
    """Let the system refuse more memory or time than this."""
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return
    for what, most in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CPU, seconds)):
        if most:
            resource.setrlimit(what, (most, most))


def limit_printing(most: int) -> None:
    """Let a cell that prints more than ``most`` characters fail at that print."""
    from ipykernel.iostream import OutStream

    write, said = OutStream.write, {}

    def counted(stream, text):
        cell = stream.parent_header.get("msg_id")
        said[cell] = said.get(cell, 0) + len(text)
        if said[cell] > most:
            raise RuntimeError(f"this cell printed more than {most:,} characters")
        return write(stream, text)

    OutStream.write = counted


def main() -> None:
    limits, connection = json.loads(sys.argv[1]), sys.argv[2]
    with open(connection) as file:
        info = file.read()
    if limits["user"]:
        drop_rights(limits["user"])
        connection = os.path.join(os.getcwd(), "kernel.json")  # that the account may read
        with open(connection, "w", opener=lambda p, f: os.open(p, f, 0o600)) as file:
            file.write(info)
    limit(limits["memory"], limits["seconds"])
    limit_printing(limits["printed"])
    from ipykernel.kernelapp import launch_new_instance

    history = "--HistoryManager.hist_file=:memory:"
    launch_new_instance(["-f", connection, history])


if __name__ == "__main__":
    main()
