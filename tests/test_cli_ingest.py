"""Ingest on the command line: which events, which rules, and logs that are refused."""

from __future__ import annotations

import inspect
import re
import uuid
from pathlib import Path

import pandas as pd
import pytest

import dasrec
from dasrec.cli import main
from tests.test_cli import COLUMNS, good, run

HEADER = "user,item,value,timestamp\n"
ROWS = "1,1,3,10\n1,2,4,11\n2,1,5,12\n"
BAD_LOGS = {
    "empty": ("", "is empty"),
    "header-only": (HEADER, "has no rows"),
    "no-column": ("who,item,value,timestamp\n1,2,3,4\n", "has no column 'user'; it has: 'who'"),
    "text-value": (HEADER + ROWS + "2,2,many,13\n", "1 x value is not a finite number"),
    "nan-value": (HEADER + ROWS + "2,2,nan,13\n", "1 x value is not a finite number"),
    "infinite-value": (HEADER + ROWS + "2,2,inf,13\n", "1 x value is not a finite number"),
    "negative-time": (HEADER + ROWS + "2,2,3,-5\n", "timestamp is missing, unparsable or before"),
    "text-time": (HEADER + ROWS + "2,2,3,noon\n", "timestamp is missing, unparsable or before"),
    "no-user": (HEADER + ROWS + ",2,3,14\n", "1 x user id is missing"),
    "no-item": (HEADER + ROWS + "2,,3,14\n", "1 x item id is missing"),
    "one-user": (HEADER + "1,1,3,10\n1,2,4,11\n", "there is one user left"),
    "one-item": (HEADER + "1,1,3,10\n2,1,4,11\n", "there is one item left"),
}


@pytest.mark.parametrize("name", BAD_LOGS)
def test_bad_logs_are_refused_and_leave_nothing(tmp_path: Path, name: str) -> None:
    text, message = BAD_LOGS[name]
    path = tmp_path / f"{name}.csv"
    path.write_text(text)
    result = run("ingest", path, tmp_path / "store", *COLUMNS)
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "store").exists()


SHOP = """who,what,kind,when
ann,tea,click,2026-01-01
ann,jam,buy,2026-01-02
bob,tea,click,2026-01-03
bob,jam,click,2026-01-03
bob,tea,buy,2026-01-04
cid,jam,buy,2026-01-05
cid,tea,click,2026-01-06
cid,rye,look,2026-01-06
"""
SHOP_COLUMNS = ["--user", "who", "--item", "what", "--timestamp", "when"]
WEIGHTS = ["--value", "kind", "--weight", "click=1", "--weight", "buy=2.5"]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    path = tmp_path / "shop.csv"
    path.write_text(SHOP)
    (tmp_path / "ids").write_bytes("\ufeffann\r\n\r\n bob \n".encode())
    (tmp_path / "items").write_text("rye\n")
    return path


def ingested(shop: Path, *arguments: object) -> dict[tuple[str, str], float]:
    """Return the cells of the store that a command makes beside the log."""
    store = shop.with_name("store")
    good("ingest", shop, store, *SHOP_COLUMNS, *arguments, "--overwrite")
    found = dasrec.open_interactions(store)
    cells = found.to_scipy().tocoo()
    users, items = found.user_ids.ids[cells.row], found.item_ids.ids[cells.col]
    return dict(zip(zip(users, items, strict=True), cells.data.tolist(), strict=True))


def test_ingest_weighs_types_of_events(shop: Path) -> None:
    assert ingested(shop, *WEIGHTS, "--bad-rows", "drop", "--dedupe", "sum") == {
        ("ann", "tea"): 1,
        ("ann", "jam"): 2.5,
        ("bob", "tea"): 3.5,
        ("bob", "jam"): 1,
        ("cid", "jam"): 2.5,
        ("cid", "tea"): 1,
    }


@pytest.mark.parametrize(
    ("options", "left"),
    [
        (["--since", "2026-01-03", "--until", "2026-01-06"], {"bob-tea", "bob-jam", "cid-jam"}),
        (["--keep-users", "ids"], {"ann-tea", "ann-jam", "bob-tea", "bob-jam"}),
        (["--drop-users", "ids", "--until", "2026-01-07"], set()),
        (
            ["--drop-items", "items", "--keep-users", "ids"],
            {"ann-tea", "ann-jam", "bob-tea", "bob-jam"},
        ),
        (["--keep-items", "items"], set()),
        (["--max-user", "2"], set()),
        (["--max-user", "0.3"], set()),
        (
            ["--min-item", "2", "--drop-items", "items"],
            {f"{u}-{i}" for u in ("ann", "bob", "cid") for i in ("tea", "jam")},
        ),
        (
            [*WEIGHTS, "--bad-rows", "drop", "--value-range", "2", "9"],
            {"ann-jam", "bob-tea", "cid-jam"},
        ),
    ],
)
def test_ingest_keeps_what_its_options_ask_for(
    shop: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], left: set[str]
) -> None:
    monkeypatch.chdir(shop.parent)
    if left:
        assert {"-".join(cell) for cell in ingested(shop, *options)} == left
        return
    refused = run("ingest", shop, shop.with_name("store"), *SHOP_COLUMNS, *options)
    assert refused.exit_code == 1
    assert re.search("there is one (user|item) left after cleaning", refused.stderr)


def test_ingest_keeps_bad_rows_in_quarantine(shop: Path) -> None:
    bad = shop.with_name("bad")
    ingested(shop, *WEIGHTS, "--bad-rows", "drop", "--quarantine", bad)
    kept = pd.read_parquet(bad)
    assert kept["user"].tolist() == ["cid"]
    assert kept["reason"].tolist() == ["value is not a finite number"]


def test_ingest_hides_users_by_a_key_from_a_file_or_a_variable(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "0123456789abcdef" * 4
    shop.with_name("key").write_text(key + "\n")
    monkeypatch.setenv("SECRET_OF_TESTS", key)
    of_file = ingested(shop, "--key-file", shop.with_name("key"))
    of_variable = ingested(shop, "--key-env", "SECRET_OF_TESTS")
    events = dasrec.read_events(shop, user="who", item="what")
    hidden = dasrec.pseudonymise(events, key=key.encode()).frame.compute()
    assert of_file == of_variable
    assert {user for user, _ in of_file} == set(hidden["user"])
    fewer = ingested(shop, "--key-env", "SECRET_OF_TESTS", "--keep-users", shop.with_name("ids"))
    assert {user for user, _ in fewer} == set(hidden["user"][:5])


def test_ingest_makes_one_id_of_all_spellings_of_a_uuid(tmp_path: Path) -> None:
    one, two = uuid.UUID(int=1), uuid.UUID(int=2)
    log = tmp_path / "log.csv"
    log.write_text(f"u,i\n{one},1\n{one.urn.upper()},2\n{two},1\n{two.hex},2\n")
    for option in (["--user-ids", "uuid"], ["--ids", "uuid", "--item-ids", "int64"]):
        columns = ["--user", "u", "--item", "i", "--overwrite"]
        assert good("ingest", log, tmp_path / "s", *columns, *option)["n_users"] == 2
        found = dasrec.open_interactions(tmp_path / "s")
        assert found.user_ids.ids.tolist() == [str(one), str(two)]
        assert found.item_ids.ids.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--weight", "click=1"], "--weight is given without --value; expected --value with the"),
        (["--value", "kind", "--weight", "click"], "--weight is 'click'; expected a type of event"),
        (
            ["--value", "kind", "--weight", "a=b"],
            "--weight is 'a=b'; expected a type of event and a",
        ),
        (["--value", "kind", "--weight", "a=nan"], "--weight is 'a=nan'; expected a type of event"),
        (["--value", "kind", "--weight", "=1"], "--weight is '=1'; expected a type of event and a"),
        (["--since", "soon"], "'soon' is no time; expected one like 2026-01-31"),
        (["--value-range", "1", "2"], "was read without values; name their column"),
        (["--value", "kind", "--value-range", "2", "1"], "value_range is (2.0, 1.0); expected"),
        (["--max-user", "0"], "max_user is 0; expected a finite number greater than 0"),
        (["--keep-users", "nothing"], "No such file or directory: '"),
        (["--keep-users", "latin"], "latin is no text in UTF-8; expected one id a line"),
        (
            ["--item-ids", "int64", "--drop-items", "items"],
            "a list of item ids has 'rye'; expected",
        ),
        (["--key-file", "items"], "key must be 16 to 64 secret bytes"),
        (["--key-file", "nothing"], "No such file or directory: '"),
        (["--key-file", "items", "--key-env", "X"], "--key-file and --key-env are both given"),
        (["--key-env", "NOT_SET_IN_TESTS"], "variable NOT_SET_IN_TESTS is not set; expected 16 to"),
        (["--append", "--quarantine", "q"], "--append adds to a store; leave out --quarantine"),
        (["--append", "--overwrite"], "--append adds to a store; leave out --quarantine and"),
    ],
)
def test_options_of_ingest_that_make_no_sense_are_refused(
    shop: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    monkeypatch.chdir(shop.parent)
    Path("latin").write_bytes("José".encode("latin-1"))
    result = run("ingest", shop, "store", *SHOP_COLUMNS, *options)
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not Path("store").exists()


@pytest.mark.parametrize("option", ["--ids=words", "--max-user=many", "--value-range=1", "--key=x"])
def test_options_of_ingest_that_are_none_are_refused(shop: Path, option: str) -> None:
    result = run("ingest", shop, shop.with_name("store"), *SHOP_COLUMNS, option)
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    assert not shop.with_name("store").exists()


def test_the_help_of_ingest_has_sections() -> None:
    text = run("ingest", "--help").output
    headings = re.findall(r"^(\w.*):$", text, re.M)
    assert headings == ["Columns of the log", "Which events", "Cleaning", "Pseudonyms", "Options"]
    names = {name for param in main.commands["ingest"].params for name in param.opts}
    assert all(name in text for name in names if name.startswith("--"))


def test_ingest_has_an_option_for_every_rule_of_cleaning() -> None:
    options = {param.name for param in main.commands["ingest"].params}
    assert inspect.signature(dasrec.clean).parameters.keys() - {"events"} <= options
    assert inspect.signature(dasrec.within).parameters.keys() - {"events"} <= options
