"""Addresses of files elsewhere: what is shown of them, and what is kept apart."""

import pytest

from mlefw.errors import UsageError
from mlefw.system.address import VARIABLE, check_named, is_remote, name, public, whole, withheld

SHOWN = {
    "https://h/a.csv?X-Amz-Signature=ab%2F&b=c": "https://h/a.csv",
    "'https://u:p@h:80/a.csv?x=1'": "'https://h:80/a.csv'",
    "https://u:p@s@h/a#f": "https://h/a",
    "HTTPS://h/a?b": "HTTPS://h/a",
    "https://h/a.csv?x=1,https://h/b.csv?y=2,3": "https://h/a.csv,https://h/b.csv",
    "choice(https://h/a.csv?x=1,https://h/b.csv?y=2)": "choice(https://h/a.csv,https://h/b.csv)",
    "s3://KEY:SEC/RE+T@bucket/a.csv": "s3://bucket/a.csv",
    "ftp://user:word@h/a": "ftp://h/a",
}
AS_THEY_ARE = ("s3://b/part-?.csv", "s3://b/a#1.csv", "https://h:8080/a@b.csv", "https://h/a,b.csv", "a?b", "/data/a@b")


@pytest.mark.parametrize("text", SHOWN)
def test_secrets_are_not_shown(text: str) -> None:
    assert public(text) == SHOWN[text]


@pytest.mark.parametrize("text", AS_THEY_ARE)
def test_what_holds_no_secret_stays(text: str) -> None:
    assert public(text) == text
    assert withheld([text]) == [text]


def test_the_whole_address_is_known_to_this_process_and_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "{}")
    assert withheld(["data.path=https://u:p@h/a.csv?s=1", "b"]) == ["data.path=https://h/a.csv", "b"]
    assert whole("https://h/a.csv") == "https://u:p@h/a.csv?s=1"
    assert whole("https://h/b.csv") == "https://h/b.csv"
    # A signature is renewed.
    withheld(["https://h/a.csv?s=2"])
    assert whole("https://h/a.csv") == "https://h/a.csv?s=2"


@pytest.mark.parametrize("texts", [["https://h/a?x=1", "https://h/a?x=2"], ["https://h/a?x=1,https://h/a"]])
def test_addresses_that_would_look_alike_are_refused(monkeypatch: pytest.MonkeyPatch, texts: list[str]) -> None:
    monkeypatch.setenv(VARIABLE, "{}")
    with pytest.raises(UsageError, match="https://h/a is given with two") as caught:
        withheld(texts)
    assert "x=" not in str(caught.value)


def test_keys_of_a_store_come_from_the_environment() -> None:
    with pytest.raises(UsageError, match="AWS_ACCESS_KEY_ID") as caught:
        withheld(["data.path=s3://KEY:SECRET@bucket/a.csv"])
    assert "KEY:" not in str(caught.value)
    assert "SECRET" not in str(caught.value).replace("AWS_SECRET_ACCESS_KEY", "")


def test_what_is_remote() -> None:
    assert all(map(is_remote, ("s3://b/a", "S3://b/a", "gs://b/a", "https://h/a", "http://h/a")))
    assert not any(map(is_remote, ("ftp://h/a", "file:///a", "s3:/b", "/s3://b", "C:/a", "")))


def test_addresses_that_the_user_has_not_named_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "{}")
    monkeypatch.setenv("MLEFW_REMOTE", "s3://mine/ https://h/folder")
    name(["data.path=s3://b/a.csv,b.csv", "data.path=choice(https://h/a?s=1,gs://b/c)", "x=https://h/e?${oc.env:X}"])
    named = ("s3://b/a.csv,b.csv", "s3://b/a.csv", "https://h/a", "gs://b/c", "https://h/e", "/a/b", "d.csv")
    check_named([*named, "s3://mine/a/b", "https://h/folder", "https://h/folder/x"])
    # Secrets of a file do not make its address the user's.
    withheld(["https://h/f?s=1"])
    for address in ("s3://b/a", "https://h/f", "s3://mine-too/a", "https://h/folders", "gs://b", "http://h/a"):
        with pytest.raises(UsageError, match="stands in a file"):
            check_named([address])
