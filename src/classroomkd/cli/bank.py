"""``classroomkd bank``: mentors' stored answers, filled ahead, looked at, checked, brought together, cleared away."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from classroomkd.cli.options import JsonOutput
from classroomkd.cli.progress import Watch
from classroomkd.cli.run import size
from classroomkd.errors import RunStopped, UserError

__all__ = ["app"]

app = typer.Typer(
    help="Mentors' stored answers. FOLDER is a cache, the folder 'bank' in it, or one store there.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

Folder = Annotated[Path, typer.Argument(help="A cache, its folder 'bank', or one store in it.", metavar="FOLDER")]


def _stores(folder: Path) -> list[Path]:
    """The stores under a folder.

    Raises:
        UserError: there are none.
    """
    from classroomkd import bank

    for root in (folder, folder / "bank"):
        if found := bank.stores(root):
            return found
    if (folder / "manifest.json").is_file():
        return [folder]
    raise UserError(f"{folder} holds no stored answers; fill some with: classroomkd bank fill RECIPE")


@app.command("fill")
def fill(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or a short name such as smoke.", metavar="RECIPE")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes to the recipe, e.g. bank=views=8.", metavar="KEY=VALUE")
    ] = None,
    shard: Annotated[
        str, typer.Option(help="k/K: keep only the k-th of K shares of the samples (from 0), on a disk of its own.")
    ] = "0/1",
    trust_code: Annotated[bool, typer.Option("--trust-code", help="Allow py: models and data to run.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Store every answer of a recipe's mentors before any student starts; killed, the same command goes on."""
    from classroomkd.engine import assistants
    from classroomkd.engine.experiment import Experiment
    from classroomkd.engine.opening import start
    from classroomkd.engine.workers import Job, execute
    from classroomkd.recipe import load_recipe

    wanted = load_recipe(recipe, overrides or [], trust_code=trust_code)
    out = Path("runs") / wanted.name
    with Watch(quiet=quiet) as watch:
        setup = start(wanted, out, trust_code=trust_code)
        setup.shard, setup.ahead = _share(shard), True
        if setup.bank.spec.kind == "off":
            raise UserError(f"bank: nothing would be stored ({setup.bank.why}); say bank=exact or bank=views=V")
        Experiment(setup, out, notify=watch).check()
        jobs = [{"job": m.name, "kind": "mentor", "epochs": 0, "work": 1} for m in wanted.mentors]
        watch({"event": "plan", "jobs": jobs})
        records: dict[int, dict[str, Any]] = {}
        for wave in assistants.waves(wanted.mentors):
            for i in wave:
                teachers = tuple(records[t] for t in assistants.teachers_of(wanted.mentors, i))
                watch({"event": "start", "job": wanted.mentors[i].name})
                records[i] = execute(setup, Job("mentor", wanted.mentors[i].name, i, mentors=teachers), watch)
                made = records[i]
                watch.say(
                    f"{made['name']}: {made['forwards']:,} samples answered now, {made['answer_seconds']:.0f} s in all"
                )
    print(setup.cache / "bank")


def _share(text: str) -> tuple[int, int]:
    k, _, shards = text.partition("/")
    if not (k.isdigit() and shards.isdigit() and int(k) < int(shards)):
        raise UserError(f"--shard {text}: write k/K with k from 0 to K-1, for example 0/4")
    return int(k), int(shards)


@app.command("info")
def info(folder: Folder, as_json: JsonOutput = False) -> None:
    """What is stored: mentors, views, rows that are there, bytes."""
    from classroomkd import bank

    found = [bank.info(store) for store in _stores(folder)]
    if as_json:
        keys = ("kind", "views", "samples", "codec", "parts", "rows", "wanted", "nbytes", "on_disk", "key", "software")
        print(json.dumps([{"folder": str(f.folder), **{k: getattr(f, k) for k in keys}} for f in found], indent=1))
        return
    table = Table()
    for heading in ("store", "answer", "form", "views", "samples", "filled", "on disk", "when full"):
        left = heading in ("store", "answer", "form")
        table.add_column(heading, justify="left" if left else "right", overflow="fold")
    for f in found:
        filled = f"{f.rows / max(f.wanted, 1):.1%}"
        table.add_row(
            f.folder.name, f.kind, f.codec, f"{f.views}", f"{f.samples:,}", filled, size(f.on_disk), size(f.nbytes)
        )
    Console().print(table)


@app.command("verify")
def verify(
    folder: Folder,
    repair: Annotated[bool, typer.Option("--repair", help="Forget damaged rows: filling asks them again.")] = False,
    as_json: JsonOutput = False,
) -> None:
    """Read every row and compare it with its checksum; exit code 1 when something is damaged and not repaired."""
    from classroomkd import bank

    found = [bank.verify(store, repair=repair) for store in _stores(folder)]
    if as_json:
        keys = ("good", "missing", "damaged", "problems")
        print(json.dumps([{"folder": str(f.folder), **{k: getattr(f, k) for k in keys}} for f in found], indent=1))
    else:
        for f in found:
            print(f"{f.folder.name}: {f.good:,} rows good, {f.missing:,} not there, {f.damaged:,} damaged")
            for problem in f.problems:
                print(f"  {problem}", file=sys.stderr)
    if not repair and (bad := sum(not f.sound for f in found)):
        raise RunStopped(
            f"{bad} of {len(found)} stores are damaged; --repair forgets what is, and filling asks it again"
        )


@app.command("merge")
def merge(
    sources: Annotated[list[Path], typer.Argument(help="Caches or their 'bank' folders.", metavar="SOURCE...")],
    into: Annotated[Path, typer.Option(help="The cache that is to hold them all.")],
) -> None:
    """Bring stores that other machines filled into one cache; the sources stay as they are."""
    from classroomkd import bank

    by_name: dict[str, list[Path]] = {}
    for source in sources:
        for store in _stores(source):
            by_name.setdefault(store.name, []).append(store)
    root = into if into.name == "bank" else into / "bank"
    for name, stores in by_name.items():
        added = bank.merge(stores, root / name)
        there = bank.info(root / name)
        print(f"{name}: {added:,} rows added, {there.rows:,} of {there.wanted:,} there")


@app.command("gc")
def gc(
    folder: Folder,
    keep_days: Annotated[float, typer.Option(help="Keep what was used in so many days.")] = 30.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Remove stores that nothing has used for a while."""
    from classroomkd import bank

    stores = _stores(folder)
    root = stores[0].parent
    others = {store.name for store in bank.stores(root)} - {store.name for store in stores}
    removed = bank.gc(root, keep=others, keep_days=keep_days, dry_run=dry_run)
    _tell("would remove" if dry_run else "removed", removed.folders)
    _tell("left, they hold other files:", removed.left)
    freed = "would be freed" if dry_run else "freed"
    print(f"{size(removed.nbytes)} {freed}, {len(stores) - len(removed.folders)} stores stay")


def _tell(what: str, folders: Sequence[Path]) -> None:
    for folder in folders:
        print(f"{what} {folder.name}")
