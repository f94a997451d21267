"""Against repositories made by the program git, over its own protocols."""

import os
import shutil
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from llmops_core.assistant import GitSource as GitSection
from llmops_core.assistant import load_assistant
from llmops_core.corpus.document import Document, Rejected
from llmops_core.corpus.sources.git import GitSource
from llmops_core.corpus.sync import sync_corpus
from llmops_core.errors import ConfigError, SourceError
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from tests.office_files import pdf

AUTHOR = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *AUTHOR, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(repository: Path, **files: str | bytes | None) -> str:
    """Write (or with None, remove) files and commit; in a name, `__` is a slash and `_` before the suffix a dot."""
    for name, content in files.items():
        path = repository / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "--allow-empty", "-m", "x")
    return git(repository, "rev-parse", "HEAD")


@pytest.fixture
def handbook(tmp_path: Path) -> Path:
    folder = tmp_path / "handbook"
    subprocess.run(["git", "init", "-q", "-b", "main", str(folder)], check=True)
    commit(folder, docs__a_md="# Alpha\ntext", docs__s__b_txt="b", README_md="# Read me")
    return folder


def source(tmp_path: Path, url: str | Path = "handbook", cache: str = "cache", **options: str) -> GitSource:
    return GitSource(GitSection(type="git", url=str(url), **options), tmp_path, tmp_path / cache)


def documents(repository: GitSource) -> dict[str, Document]:
    return {item.document_id: item for item in repository.read() if isinstance(item, Document)}


def reasons(repository: GitSource) -> dict[str, str]:
    return {item.uri: item.reason for item in repository.read() if isinstance(item, Rejected)}


def test_the_files_of_the_default_branch_are_documents(tmp_path: Path, handbook: Path) -> None:
    found = documents(source(tmp_path))
    assert found.keys() == {"handbook/README.md", "handbook/docs/a.md", "handbook/docs/s/b.txt"}
    assert found["handbook/docs/a.md"] == Document(
        "handbook/docs/a.md", "Alpha", "# Alpha\ntext", "handbook#docs/a.md", "text/markdown", "git:handbook"
    )


def test_a_folder_and_a_glob_pick_files_and_do_not_change_their_ids(tmp_path: Path, handbook: Path) -> None:
    repository = source(tmp_path, path="docs/", glob="**/*.md", branch="main")
    assert documents(repository).keys() == {"handbook/docs/a.md"}
    assert repository.name == "git:handbook@main/docs/**/*.md"


def test_ids_are_the_same_in_every_copy_and_over_every_protocol(tmp_path: Path, handbook: Path) -> None:
    subprocess.run(["git", "clone", "-q", "--bare", handbook, tmp_path / "mirror" / "handbook.git"], check=True)
    ids = documents(source(tmp_path)).keys()
    for url in (f"file://{handbook}", f"file://{tmp_path}/mirror/handbook.git/", f"{handbook}/.git", "./handbook/"):
        assert documents(source(tmp_path, url)).keys() == ids


def test_a_branch_is_followed(tmp_path: Path, handbook: Path) -> None:
    followed = source(tmp_path, branch="main")
    before, cheap = documents(followed), followed.stat_fingerprint()
    assert followed.stat_fingerprint() == cheap
    commit(handbook, docs__a_md="# Beta", docs__s__b_txt=None, docs__c_md="c")
    assert followed.stat_fingerprint() != cheap
    assert followed.content_fingerprint() != cheap
    after = documents(followed)
    assert after.keys() - before.keys() == {"handbook/docs/c.md"}
    assert before.keys() - after.keys() == {"handbook/docs/s/b.txt"}
    assert after["handbook/docs/a.md"].title == "Beta"


def test_a_branch_that_was_rewritten_is_followed_too(tmp_path: Path, handbook: Path) -> None:
    followed = source(tmp_path)
    documents(followed)
    git(handbook, "reset", "-q", "--hard")
    (handbook / "README.md").write_text("# Other")
    git(handbook, "commit", "-q", "-a", "--amend", "-m", "y")
    assert documents(followed)["handbook/README.md"].title == "Other"


@pytest.mark.parametrize("kind", ["commit", "tag", "annotated tag"])
def test_a_revision_stays_what_it_is(tmp_path: Path, handbook: Path, kind: str) -> None:
    revision = git(handbook, "rev-parse", "HEAD")
    if kind != "commit":
        git(handbook, "tag", *(["-a", "-m", "x"] if kind != "tag" else []), "v1")
        revision = "v1"
    pinned = source(tmp_path, revision=revision)
    before, fingerprint = documents(pinned), pinned.content_fingerprint()
    commit(handbook, docs__a_md="# Beta")
    assert documents(pinned) == before
    assert pinned.content_fingerprint() == fingerprint
    assert documents(source(tmp_path, cache="other", revision=revision)) == before


def test_a_commit_that_is_here_needs_its_repository_no_more(tmp_path: Path, handbook: Path) -> None:
    pinned = source(tmp_path, revision=git(handbook, "rev-parse", "HEAD"))
    before = documents(pinned)
    shutil.rmtree(handbook)
    assert documents(pinned) == before


def test_files_are_read_as_in_a_folder_and_each_bad_one_is_rejected(tmp_path: Path, handbook: Path) -> None:
    (handbook / "out.md").symlink_to("/etc/passwd")
    (handbook / "up.md").symlink_to("../elsewhere.md")
    (handbook / "dangling.md").symlink_to("nowhere.md")
    (handbook / "loop.md").symlink_to("loop.md")
    (handbook / "linked.md").symlink_to("docs/a.md")
    (handbook / "folder.md").symlink_to("docs")
    (handbook / "日本\n語.md").write_text("x")
    Path(os.fsdecode(bytes(handbook) + b"/caf\xe9.md")).write_text("x")
    commit(handbook, _hidden_md="x", latin_txt=b"caf\xe9", good_pdf=pdf("Words"), scan_pdf=pdf(""), x_png="x", e_md="")
    found = reasons(source(tmp_path))
    assert documents(source(tmp_path)).keys() == {
        *("handbook/README.md", "handbook/docs/a.md", "handbook/docs/s/b.txt"),
        *("handbook/good.pdf", "handbook/linked.md", "handbook/日本\n語.md"),
    }
    assert documents(source(tmp_path))["handbook/linked.md"].text == "# Alpha\ntext"
    assert {uri: reason.partition(":")[0] for uri, reason in found.items()} == {
        "handbook#caf\\xe9.md": "file name is not UTF-8",
        "handbook#e.md": "empty",
        "handbook#latin.txt": "not UTF-8",
        "handbook#scan.pdf": "no text in its 1 page(s)",
        "handbook#x.png": "suffix not supported",
        **dict.fromkeys([f"handbook#{name}.md" for name in ("out", "up", "dangling", "loop")], "cannot be read"),
        "handbook#folder.md": "link to a folder",
    }


def test_a_submodule_is_rejected(tmp_path: Path, handbook: Path) -> None:
    head = git(handbook, "rev-parse", "HEAD")
    git(handbook, "update-index", "--add", "--cacheinfo", f"160000,{head},vendor")
    git(handbook, "commit", "-q", "-m", "x")
    assert reasons(source(tmp_path)) == {"handbook#vendor": "submodule: not read; make it a source of its own"}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"branch": "nope"}, "has no branch 'nope'"),
        ({"revision": "v9"}, "has no tag 'v9'. A commit needs all its digits"),
        ({"revision": "0" * 40}, "cannot be fetched: "),
        ({"path": "nope"}, "has no folder 'nope' at"),
        ({"path": "README.md"}, "has no folder 'README.md' at"),
        ({"url": "missing"}, "missing cannot be reached: "),
        ({"url": "https://127.0.0.1:1/x/y.git"}, "cannot be reached: "),
        ({"url": "ext::sh -c true"}, "cannot be reached: "),
    ],
)
def test_what_is_not_there_fails_with_the_way_out(
    tmp_path: Path, handbook: Path, options: dict[str, str], says: str
) -> None:
    with pytest.raises(SourceError) as caught:
        list(source(tmp_path, **options).read())
    assert says in str(caught.value)
    assert "sources" in str(caught.value)


def test_an_empty_repository_says_so(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path / "handbook")], check=True)
    with pytest.raises(SourceError, match="has no commit yet"):
        source(tmp_path).stat_fingerprint()


def test_credentials_are_nowhere(tmp_path: Path, handbook: Path) -> None:
    secret = source(tmp_path, "https://me:hunter2@127.0.0.1:1/x/handbook.git?private_token=hunter2")
    assert secret.name == "git:https://127.0.0.1:1/x/handbook.git"
    with pytest.raises(SourceError) as caught:
        secret.stat_fingerprint()
    assert "hunter2" not in str(caught.value)
    with pytest.raises(SourceError) as caught:
        source(tmp_path, "https://hunter2@127.0.0.1:1/x.git").stat_fingerprint()
    assert "hunter2" not in str(caught.value)

    local = source(tmp_path, f"file://me:hunter2@{handbook}")
    for item in local.read():
        assert "hunter2" not in repr(item)
    for file in (file for file in (tmp_path / "cache").rglob("*") if file.is_file()):
        assert b"hunter2" not in file.read_bytes()


def test_a_copy_that_was_deleted_is_made_anew(tmp_path: Path, handbook: Path) -> None:
    before = documents(source(tmp_path))
    shutil.rmtree(tmp_path / "cache")
    assert documents(source(tmp_path)) == before


@pytest.mark.parametrize("keep", ["nothing", "HEAD", "config", "objects"])
def test_half_a_copy_is_not_taken_for_a_whole_one(tmp_path: Path, handbook: Path, keep: str) -> None:
    whole = documents(source(tmp_path))
    (copy,) = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    for path in copy.iterdir():
        if path.name != keep:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert documents(source(tmp_path)) == whole


def test_a_damaged_copy_is_made_anew(tmp_path: Path, handbook: Path) -> None:
    whole = documents(source(tmp_path))
    for file in (tmp_path / "cache").glob("*/objects/**/*"):
        if file.is_file():
            file.chmod(0o600)
            file.write_bytes(b"damage")
    assert documents(source(tmp_path)) == whole


def test_a_damaged_file_in_the_copy_is_an_error_and_no_deletion(tmp_path: Path, handbook: Path) -> None:
    documents(source(tmp_path))
    blob = git(handbook, "rev-parse", "HEAD:docs/a.md")
    (file,) = (tmp_path / "cache").glob(f"*/objects/{blob[:2]}/{blob[2:]}")
    file.chmod(0o600)
    file.write_bytes(b"damage")
    with pytest.raises(SourceError, match=r"the copy of .*handbook is damaged\. Delete .*cache.* and build again"):
        list(source(tmp_path).read())


def test_locks_of_a_process_that_was_killed_do_not_stop_the_next(tmp_path: Path, handbook: Path) -> None:
    documents(source(tmp_path))
    (copy,) = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    for name in ("shallow.lock", "config.lock", "HEAD.lock", "packed-refs.lock"):
        (copy / name).touch()
    commit(handbook, docs__c_md="c")
    assert "handbook/docs/c.md" in documents(source(tmp_path))


def test_processes_at_once_read_the_same(tmp_path: Path, handbook: Path) -> None:
    code = textwrap.dedent("""
        import sys
        from pathlib import Path
        from llmops_core.assistant import GitSource as Section
        from llmops_core.corpus.sources.git import GitSource
        folder = Path(sys.argv[1])
        print(sorted(d.document_id for d in GitSource(Section(type="git", url="handbook"), folder, folder / "cache").read()))
    """)

    def read(_: int) -> str:
        return subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True, text=True
        ).stdout

    with ThreadPoolExecutor(3) as pool:
        assert set(pool.map(read, range(3))) == {f"{sorted(documents(source(tmp_path)))}\n"}


def test_only_what_is_new_is_fetched(tmp_path: Path, handbook: Path) -> None:
    commit(handbook, large_txt=os.urandom(300_000).hex())
    documents(source(tmp_path))
    commit(handbook, docs__c_md="c")

    def size() -> int:
        return sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*") if path.is_file())

    before = size()
    assert "handbook/docs/c.md" in documents(source(tmp_path))
    assert size() - before < 100_000


def test_history_is_not_brought(tmp_path: Path, handbook: Path) -> None:
    commit(handbook, old_txt=os.urandom(300_000).hex())
    commit(handbook, old_txt=None)
    documents(source(tmp_path, f"file://{handbook}"))
    assert sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*") if path.is_file()) < 200_000


def test_a_process_that_git_has_started_reads_its_own_repository_and_not_that_one(
    tmp_path: Path, handbook: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "elsewhere" / "index"))
    assert documents(source(tmp_path))


def test_without_the_program_git_the_reason_is_plain(
    tmp_path: Path, handbook: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceError, match="the program git is not installed"):
        source(tmp_path).stat_fingerprint()


def test_a_build_follows_the_repository_and_rejects_once(tmp_path: Path, handbook: Path, lakehouse: Lakehouse) -> None:
    commit(handbook, bad_txt=b"\xff")
    (tmp_path / "assistant.yaml").write_text(
        yaml.safe_dump({"name": "helper", "sources": [{"type": "git", "url": "handbook", "branch": "main"}]})
    )
    assistant = load_assistant(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMOPS_HOME", str(tmp_path / "home"))
        for _ in range(2):
            done = sync_corpus(lakehouse, assistant, Provenance("run"), log=lambda line: None)
            assert (done.documents, len(done.rejected)) == (3, 1)
            assert lakehouse.table("helper", "corpus_rejected").read()["uri"].to_list() == ["handbook#bad.txt"]
        commit(handbook, bad_txt="good")
        done = sync_corpus(lakehouse, assistant, Provenance("run"), log=lambda line: None)
        assert (done.documents, done.new, done.changed) == (4, 1, 0)
        assert lakehouse.table("helper", "corpus_rejected").read().is_empty()
        handbook.rename(tmp_path / "gone")
        with pytest.raises(SourceError, match="cannot be reached"):
            sync_corpus(lakehouse, assistant, Provenance("run"), log=lambda line: None)
        assert lakehouse.table("helper", "corpus_documents").read().height == 4


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"branch": "a", "revision": "b"}, "names a branch to follow or a revision to stay at, not both"),
        ({"url": "--upload-pack=x"}, "cannot begin with -"),
        ({"brnach": "a"}, "unknown key. Allowed here: type, url, branch, revision, path, glob"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path: Path, options: dict[str, str], says: str) -> None:
    section = {"type": "git", "url": "x", **options}
    (tmp_path / "assistant.yaml").write_text(yaml.safe_dump({"name": "helper", "sources": [section]}))
    with pytest.raises(ConfigError, match=says):
        load_assistant(tmp_path)
