"""The verb for this machine: doctor."""

import dataclasses

from raysp.cli.console import escape, out, print_json, showing
from raysp.cli.options import FAILED, AsJson, Debug


def doctor(as_json: AsJson = False, debug: Debug = False) -> None:
    """Check this machine: versions, memory, codecs, a local Ray."""
    from raysp.cluster.doctor import examine

    findings = examine()
    with showing(0 if all(one.ok for one in findings) else FAILED):
        if as_json:
            print_json({"findings": [dataclasses.asdict(one) for one in findings]})
            return
        for one in findings:
            mark = "[green]ok  [/green]" if one.ok else "[red]fail[/red]"
            out.print(f"{mark} {escape(one.what)}: {escape(one.found)}")
            if one.advice:
                out.print(f"     {escape(one.advice)}")
