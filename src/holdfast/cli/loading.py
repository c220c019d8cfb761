"""Finding and importing the apps that a command line names: `app.py`, `package.module`, `module:attribute`."""

from __future__ import annotations

import difflib
import importlib
import linecache
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from traceback import extract_tb
from types import ModuleType, TracebackType
from typing import Any

import msgspec

from holdfast.base.errors import ConfigurationError
from holdfast.sdk.app import App

CANDIDATES = (
    "app.py",
    "main.py",
    "functions.py",
    "jobs.py",
    "worker.py",
    "app/main.py",
    "app/__init__.py",
    "src/app.py",
    "src/main.py",
)
"""Where an app is looked for when the command line names none."""

_OWN_PACKAGE = Path(__file__).resolve().parent.parent


class TargetError(ConfigurationError):
    """A target can't be loaded; the message says which, where and why."""

    code = "target_invalid"

    def __init__(self, message: str, files: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.files = tuple(files)
        """The files of the user's that took part in the failure."""


class Loaded(msgspec.Struct):
    """What the targets gave."""

    apps: list[App]
    sources: dict[str, str]
    """App id to the target it came from, as the user wrote it."""
    problems: list[str]
    """One text for each target that can't be loaded."""
    broken: list[str]
    """Files that took part in a failure: a change in one of them may mend it."""


def find_target(directory: Path) -> str | None:
    """The first of `CANDIDATES` below a directory whose source mentions holdfast, or None."""
    for name in CANDIDATES:
        path = directory / name
        if path.is_file() and b"holdfast" in path.read_bytes():
            return name
    return None


def load(targets: Sequence[str]) -> Loaded:
    """Import all targets; those that fail become problems, the others still count."""
    loaded = Loaded([], {}, [], [])
    for target in targets:
        try:
            for app in load_target(target):
                _add(loaded, app, target)
        except TargetError as error:
            loaded.problems.append(str(error))
            loaded.broken += [str(Path.cwd() / target.partition(":")[0]), *error.files]
    return loaded


def _add(loaded: Loaded, app: App, target: str) -> None:
    other = next((known for known in loaded.apps if known.id == app.id), None)
    if other is app:
        return
    if other is not None:
        raise TargetError(
            f"{target}: app id {app.id!r} is taken by an App in {loaded.sources[app.id]}; give one another id"
        )
    loaded.apps.append(app)
    loaded.sources[app.id] = target


def load_target(target: str) -> list[App]:
    """The apps of one target.

    Args:
        target: A path ending in `.py`, or a dotted module, each optionally followed by `:attribute`.

    Raises:
        TargetError: it does not exist, raises while it is imported, or has no App.
    """
    name, _, attribute = target.partition(":")
    if not name:
        raise TargetError(f"{target!r} names no file or module; write app.py, package.module or package.module:app")
    module = _import(target, name)
    if attribute:
        return [_attribute(target, module, attribute)]
    apps = {id(value): value for value in vars(module).values() if isinstance(value, App)}
    if not apps:
        raise TargetError(_no_app(target, module))
    return list(apps.values())


def _import(target: str, name: str) -> ModuleType:
    if name.endswith(".py") or os.sep in name:
        root, module_name = _module_of(target, Path(name))
    else:
        root, module_name = Path.cwd(), name
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    try:
        _refuse_shadowed(target, root, module_name)
        return importlib.import_module(module_name)
    except TargetError:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name + ".").startswith(error.name + "."):
            raise TargetError(_no_module(target, module_name, root)) from None
        raise explain(target, error) from error
    except (Exception, SystemExit) as error:
        raise explain(target, error) from error


def _module_of(target: str, path: Path) -> tuple[Path, str]:
    """The directory to import from and the dotted name: a file inside packages is imported as part of them."""
    if path.is_dir():
        path /= "__init__.py"
    if not path.is_file():
        near = (
            difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.py")], n=1)
            if path.parent.is_dir()
            else []
        )
        hint = f"; did you mean {str(path.with_name(near[0]))!r}?" if near else f" (looked in {path.parent.resolve()})"
        raise TargetError(f"{target}: there is no such file{hint}")
    path = path.resolve()
    parts = [] if path.name == "__init__.py" else [path.stem]
    root = path.parent
    while (root / "__init__.py").is_file():
        parts.insert(0, root.name)
        root = root.parent
    name = ".".join(parts)
    if not all(part.isidentifier() for part in parts):
        raise TargetError(f"{target}: {name!r} can't be imported as a module; rename it to letters, digits and '_'")
    return root, name


def _refuse_shadowed(target: str, root: Path, module_name: str) -> None:
    """A file called like a module that is already imported would silently give that other module."""
    head = module_name.partition(".")[0]
    known = sys.modules.get(head)
    origin = getattr(known, "__file__", None)
    if (
        known is not None
        and target.partition(":")[0].endswith(".py")
        and (origin is None or root not in Path(origin).resolve().parents)
    ):
        raise TargetError(
            f"{target}: another module is already called {head!r} ({origin or 'built in'}); rename the file"
        )


def _no_module(target: str, module_name: str, root: Path) -> str:
    if (root / f"{module_name}.py").is_file():  # a file that hides behind a package of the same name
        return f"{target}: {module_name!r} is a package without that module"
    near = difflib.get_close_matches(module_name, [p.stem for p in root.glob("*.py")], n=1)
    hint = (
        f"; did you mean {near[0]!r}?"
        if near
        else "; give the path of a file, such as app.py, or install the package here"
    )
    return f"{target}: there is no module {module_name!r} in {root} or in this Python environment ({sys.prefix}){hint}"


def _attribute(target: str, module: ModuleType, attribute: str) -> App:
    value: Any = module
    for part in attribute.split("."):
        if not hasattr(value, part):
            apps = [name for name, item in vars(module).items() if isinstance(item, App)]
            hint = f"; its apps are {', '.join(apps)}" if apps else ""
            raise TargetError(f"{target}: {module.__name__} has no {attribute!r}{hint}")
        value = getattr(value, part)
    if not isinstance(value, App):
        raise TargetError(f"{target}: {attribute!r} is {_kind(value)}, not a holdfast App")
    return value


def _no_app(target: str, module: ModuleType) -> str:
    web = [
        f"{name!r} is {_kind(value)}"
        for name, value in vars(module).items()
        if not name.startswith("_") and type(value).__name__ in {"FastAPI", "Starlette", "Flask"}
    ]
    if web:
        return f"{target} defines no holdfast App ({', '.join(web)}); name the module that does"
    return f'{target} defines no holdfast App; add `from holdfast import App` and `app = App("my-app")`'


def _kind(value: object) -> str:
    if isinstance(value, type):
        return f"the class {value.__qualname__}"
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def explain(target: str, error: BaseException, what: str = "can't be loaded") -> TargetError:
    """The failure in the user's own frames: what, where, and the line."""
    files = [frame.filename for frame in extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        where = f"{shown_path(error.filename)}:{error.lineno}"
        text = f"{target} {what}: {where}: {type(error).__name__}: {error.msg}\n    {(error.text or '').strip()}"
        return TargetError(text, [*files, error.filename])
    if isinstance(error, ConfigurationError):
        return TargetError(f"{target} {what}: {error}", files)
    headline = f"{target} {what}: {type(error).__name__}: {error}".rstrip(": ")
    if isinstance(error, SystemExit):
        headline = f"{target} {what}: it ends the process while it is imported"
    frames = [f"  {where}, in {name}\n    {source}" for where, name, source in _frames(error.__traceback__)]
    return TargetError("\n".join([headline, *frames, *_hint(error)]), files)


def _hint(error: BaseException) -> list[str]:
    if isinstance(error, ModuleNotFoundError):
        return [f"  Is {error.name!r} installed in {sys.prefix}, where holdfast runs?"]
    if isinstance(error, SystemExit) or "asyncio.run() cannot be called" in str(error):
        return ['  Put what starts the program below `if __name__ == "__main__":`; holdfast only imports the file.']
    return []


def _frames(traceback: TracebackType | None) -> list[tuple[str, str, str]]:
    """Where, function and line of the user's own frames; of all frames when none is the user's."""
    linecache.checkcache()
    found = [
        (frame.filename, f"{shown_path(frame.filename)}:{frame.lineno}", frame.name, (frame.line or "").strip())
        for frame in extract_tb(traceback)
        if not frame.filename.startswith("<frozen")
    ]
    own = [frame for frame in found if _is_users(Path(frame[0]))]
    return [frame[1:] for frame in own or found]


def _is_users(path: Path) -> bool:
    if "site-packages" in path.parts or "dist-packages" in path.parts or path.is_relative_to(_OWN_PACKAGE):
        return False
    return not any(path.is_relative_to(Path(prefix).resolve() / "lib") for prefix in (sys.prefix, sys.base_prefix))


def shown_path(filename: str) -> str:
    """A file as people write it: relative to the working directory where it is below."""
    try:
        return str(Path(filename).resolve().relative_to(Path.cwd()))
    except ValueError:
        return filename


def source_directories(loaded: Loaded) -> list[str]:
    """Where the sources of the user's apps are: the directories of every imported module that isn't installed, and of
    every file that could not be imported.
    """
    found = {str(Path(name).resolve().parent) for name in loaded.broken}
    for module in list(sys.modules.values()):
        origin = getattr(module, "__file__", None)
        if origin and origin.endswith(".py") and _is_users(Path(origin).resolve()):
            found.add(str(Path(origin).resolve().parent))
    return sorted(found)
