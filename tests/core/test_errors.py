import copy
import json
import pickle

import pytest

from tandem.core import errors
from tandem.core.errors import ConfigError, TandemError, UnknownPluginError

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, TandemError)]


def make(kind: type[TandemError]) -> TandemError:
    return kind(given="policy 'x'", allowed="a, b", todo="choose one")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_survives_pickle_copy_and_json(kind: type[TandemError]) -> None:
    error = make(kind)
    through_json = TandemError.from_dict(json.loads(json.dumps(error.as_dict())))
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), through_json):
        assert type(twin) is kind
        assert twin.as_dict() == error.as_dict()
        assert str(twin) == "policy 'x'; allowed: a, b; choose one"


def test_passwords_and_tokens_in_urls_are_not_told() -> None:
    error = ConfigError(
        given="http://me:p@ss@host/a and HTTPS://tok@h/", allowed="https://token@host", todo="see s3://bucket/x:y@z"
    )
    for text in (str(error), json.dumps(error.as_dict()), repr(pickle.loads(pickle.dumps(error)))):
        assert "http://me:***@host/a" in text
        assert "https://***@host" in text
        assert "HTTPS://***@h/" in text
        assert "s3://bucket/x:y@z" in text


def test_queries_keep_what_is_no_secret() -> None:
    same = "http://example.com?mail=a@b.c and memory://a/b?part=2&name=x"
    assert errors.without_secrets(same) == same
    sample = "sample 3, 'index.php?token=3&author=4' of http://h/s?author=5&monkey=6: its bytes"
    assert errors.without_secrets(sample) == sample
    told = errors.without_secrets("pack 'http://h/x.tar?token=TOP&part=2': see http://h/?X-Amz-Signature=a%2Fb; it")
    assert told == "pack 'http://h/x.tar?token=***&part=2': see http://h/?X-Amz-Signature=***; it"


def test_the_exit_code_of_a_users_mistake_is_2() -> None:
    assert make(UnknownPluginError).as_dict()["exit_code"] == 2


def test_a_name_with_a_line_end_stays_on_one_line() -> None:
    error = ConfigError(given="name 'a\nb\x1b[31m'", allowed="naïve names", todo="rename")
    assert str(error) == r"name 'a\nb\x1b[31m'; allowed: naïve names; rename"


def test_a_kind_that_is_unknown_here_is_still_a_tandem_error() -> None:
    error = TandemError.from_dict({"error": "FutureError", "given": "g", "allowed": "a", "todo": "t"})
    assert type(error) is TandemError
    assert str(error) == "g; allowed: a; t"


def test_parts_are_keyword_only_and_all_required() -> None:
    with pytest.raises(TypeError):
        ConfigError("given", "allowed", "todo")  # type: ignore[misc]
    with pytest.raises(TypeError):
        ConfigError(given="given", allowed="allowed")  # type: ignore[call-arg]
