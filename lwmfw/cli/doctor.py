"""What `lwmfw plugins --doctor` prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from lwmfw.authoring.doctor import Examined, Plugin, Report, Shared, examine
from lwmfw.cli.table import print_json, print_table
from lwmfw.errors import UserError


def tell_health(files: Sequence[Path], *, as_json: bool) -> None:
    """Print what is wrong with plug-ins, and what they stand on.

    Raises:
        UserError: something is broken.
    """
    report = examine(files)
    if as_json:
        print_json(asdict(report))
    else:
        _print(report)
    if report.faults:
        raise UserError(f"broken plug-ins and components: {report.faults}; mend, update or uninstall them")


def _print(report: Report) -> None:
    print_table(["environment", "here"], [[*item] for item in report.environment.items()])
    print()
    rows = [
        [each.name, f"missing: {', '.join(each.missing)}" if each.missing else "installed", each.purpose]
        for each in report.extras
    ]
    print_table(["extra", "here", "for"], rows)
    print()
    rows = [[each.provider, each.found_by, str(each.components), _state(each)] for each in report.plugins]
    print_table(["plug-in", "found by", "components", "state"], rows)
    if report.components:
        print()
        rows = [[each.kind, each.name, each.provider, _state(each)] for each in report.components]
        print_table(["kind", "name", "from", "state"], rows)
    if report.shared:
        print()
        rows = [[each.kind, each.name, _settled(each)] for each in report.shared]
        print_table(["kind", "several have the name", "what to do"], rows)


def _settled(each: Shared) -> str:
    if len(set(each.use)) < len(each.use):
        return f"no recipe can say which {each.use[0]} is meant: uninstall or rename one"
    return "in recipes, write " + " or ".join(f'use = "{use}"' for use in each.use)


def _state(each: Plugin | Examined) -> str:
    if each.fault:
        return f"{each.fault} ({each.place})" if each.place else each.fault
    required = each.required if isinstance(each, Examined) else []
    return f"not examined: has to be told {', '.join(required)}" if required else "ok"
