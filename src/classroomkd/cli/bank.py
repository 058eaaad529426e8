"""``classroomkd bank``: mentors' stored answers, filled ahead, looked at, checked, brought together, cleared away."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from classroomkd._files import refuse_links
from classroomkd._terminal import Console
from classroomkd.cli.options import JsonOutput, Quiet, RecipeName, TrustCode, new_table, resume_with
from classroomkd.cli.plan import size
from classroomkd.cli.progress import Watch
from classroomkd.errors import RunStopped, UserError

__all__ = ["app"]

app = typer.Typer(
    help="Mentors' stored answers. FOLDER is a cache, its folder 'bank', one store there, or (info, verify) a run.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

Folder = Annotated[Path, typer.Argument(help="A cache, its folder 'bank', or one store in it.", metavar="FOLDER")]
FolderOrRun = Annotated[
    Path, typer.Argument(help="A cache, its folder 'bank', one store in it, or a run.", metavar="FOLDER")
]


_T = TypeVar("_T")


def _stores(folder: Path) -> list[Path]:
    """The stores under a folder, by their absolute paths ('.' has a name, too); links stay links.

    Raises:
        UserError: there are none.
    """
    from classroomkd import bank

    place = Path(os.path.abspath(folder))
    for root in (place, place / "bank"):
        if stores := bank.stores(root):
            return stores
    if (place / "manifest.json").is_file():
        return [place.resolve()]  # what was typed may be a link; nothing in it may
    if (place / "recipe.yaml").is_file():
        from classroomkd.run.stores import cache_of_run

        raise UserError(
            f"{folder} is a run; stored answers lie in a cache, which other runs may use: give {cache_of_run(place)}"
        )
    if not place.exists():
        raise UserError(f"{folder}: there is no such folder; give a run, or a cache (runs/.cache/classroomkd)")
    raise UserError(f"{folder} holds no stored answers; fill some with: classroomkd bank fill RECIPE")


def _stores_or_run(folder: Path) -> list[Path]:
    """As :func:`_stores`; of a run those that it reads."""
    place = Path(os.path.abspath(folder))
    if not (place / "recipe.yaml").is_file():
        return _stores(folder)
    from classroomkd.run.stores import stores_of_run

    return stores_of_run(place)


def _each(folder: Path, look: Callable[[Path], _T]) -> tuple[list[_T], list[tuple[Path, str]]]:
    """What ``look`` returns for every store, and the stores that it refused, with the reason."""
    results, bad = [], []
    for store in _stores_or_run(folder):
        try:
            results.append(look(store))
        except UserError as error:
            bad.append((store, str(error)))
    return results, bad


def _print_json(stores: Sequence[Any], keys: Sequence[str], bad: Sequence[tuple[Path, str]]) -> None:
    rows = [{"folder": str(store.folder), **{key: getattr(store, key) for key in keys}} for store in stores]
    print(json.dumps([*rows, *({"folder": str(store), "error": why} for store, why in bad)], indent=1))


def _complain(bad: Sequence[tuple[Path, str]]) -> None:
    if bad:
        raise UserError("\n".join(why for _, why in bad))


@app.command("fill")
def fill(
    recipe: RecipeName,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes to the recipe, e.g. bank=views=8.", metavar="KEY=VALUE")
    ] = None,
    shard: Annotated[
        str, typer.Option(help="k/K: keep only the k-th of K shares of the samples (from 0), on a disk of its own.")
    ] = "0/1",
    trust_code: TrustCode = False,
    quiet: Quiet = False,
) -> None:
    """Store every answer of a recipe's mentors before any student starts; killed, the same command goes on."""
    from classroomkd.recipe import load_recipe
    from classroomkd.run.folder import first_rank
    from classroomkd.run.session import Session

    wanted = load_recipe(recipe, overrides or [], trust_code=trust_code, writes=True)
    chosen = [*([] if shard == "0/1" else ["--shard", shard]), *(["--trust-code"] if trust_code else [])]
    resume_with(shlex.join(["classroomkd", "bank", "fill", recipe, *(overrides or []), *chosen]))
    with Watch(quiet=quiet or not first_rank()) as watch:
        session = Session(wanted, Path("runs") / wanted.name, trust_code, notify=watch, say=watch.tell)
        root = session.fill(_share(shard))
    print(root)


def _share(text: str) -> tuple[int, int]:
    k, _, shards = text.partition("/")
    if not (k.isdigit() and shards.isdigit() and int(k) < int(shards)):
        raise UserError(f"--shard {text}: write k/K with k from 0 to K-1, for example 0/4")
    return int(k), int(shards)


@app.command("info")
def info(folder: FolderOrRun, as_json: JsonOutput = False) -> None:
    """What is stored: mentors, views, rows that are there, bytes; exit code 2 when a store cannot be read."""
    from classroomkd import bank

    infos, bad = _each(folder, bank.info)
    if as_json:
        keys = (
            "kind", "views", "samples", "codec", "parts", "rows", "wanted", "nbytes", "on_disk", "left_out", "key",
            "software",
        )  # fmt: skip
        _print_json(infos, keys, bad)
        _complain(bad)
        return
    text = ("store", "answer", "form")
    table = new_table((*text, "views", "samples", "filled", "on disk", "when full"), text, fold=True)
    for store in infos:
        counts = (f"{store.views}", f"{store.samples:,}", f"{store.rows / max(store.wanted, 1):.1%}")
        table.add_row(store.folder.name, store.kind, store.codec, *counts, size(store.on_disk), size(store.nbytes))
    if infos:
        Console().print(table)
    for store in infos:
        if store.left_out is not None:
            share = f"{store.codec.partition(' ')[0]} leaves out {store.left_out:.1%}"
            print(f"{store.folder.name}: {share} of the probability (T = 1, a sample of rows)")
    _complain(bad)


@app.command("verify")
def verify(
    folder: FolderOrRun,
    repair: Annotated[bool, typer.Option("--repair", help="Forget damaged rows: filling asks them again.")] = False,
    as_json: JsonOutput = False,
) -> None:
    """Read every row and compare it with its checksum; exit code 1 when something is damaged and not repaired."""
    from classroomkd import bank

    checks, bad = _each(folder, lambda store: bank.verify(store, repair=repair))
    if as_json:
        _print_json(checks, ("good", "missing", "damaged", "problems"), bad)
    else:
        for store in checks:
            gone = " and now forgotten" if repair and store.damaged else ""
            counts = f"{store.good:,} rows good, {store.missing:,} not there, {store.damaged:,} damaged"
            print(f"{store.folder.name}: {counts}{gone}")
            for problem in store.problems:
                print(f"  {problem}", file=sys.stderr)
    _complain(bad)
    if not repair and (hurt := sum(not store.sound for store in checks)):
        raise RunStopped(
            f"{hurt} of {len(checks)} stores are damaged; --repair forgets what is, and filling asks it again"
        )


@app.command("merge")
def merge(
    sources: Annotated[list[Path], typer.Argument(help="Caches or their 'bank' folders.", metavar="SOURCE...")],
    into: Annotated[Path, typer.Option(help="The cache that is to hold them all.")],
) -> None:
    """Copy stores that other machines filled into one cache, checking every row; the sources stay as they are."""
    from classroomkd import bank

    by_name: dict[str, list[Path]] = {}
    for source in sources:
        for store in _stores(source):
            by_name.setdefault(store.name, []).append(store)
    into = Path(os.path.abspath(into))
    root = into if into.name == "bank" else refuse_links(into, "bank")
    for name, stores in by_name.items():
        merged = bank.merge(stores, root / name)
        there = bank.info(root / name)
        hurt = f", {merged.damaged:,} damaged and left out" if merged.damaged else ""
        print(f"{name}: {merged.added:,} rows added{hurt}, {there.rows:,} of {there.wanted:,} there")
    for text in bank.told_apart(root):
        print(f"note: {text}", file=sys.stderr)


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
    for folder in removed.folders:
        print(f"{'would remove' if dry_run else 'removed'} {folder.name}")
    for folder in removed.left:
        print(f"left, they hold other files: {folder.name}")
    freed = "would be freed" if dry_run else "freed"
    print(f"{size(removed.nbytes)} {freed}, {len(stores) - len(removed.folders)} stores stay")
