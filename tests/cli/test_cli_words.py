"""The command's errors are in the command's words: its options, not the library's arguments."""

import json
import re
from pathlib import Path

import pytest
from test_cli_output import fake, run  # noqa: F401  fixtures

import ief_async
from ief_async.cli import _words
from ief_async.testing import Fault

# a name with an underscore, an argument with its equals sign, a class or a method of the library
OF_THE_LIBRARY = re.compile(
    r"\b[a-z]+_[a-z_]+\b|\b[a-z]+=|\bLimits\b|\bPage\.|\biter_|\.checkpoint\b"
)
PACKAGE = Path(ief_async.__file__).parent


def to_pods(fault):
    """Return what answers requests for pods with a fault, and leaves the others alone."""
    return lambda request: fault if request.path.endswith("/pods") else None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--region", "nowhere"), "--region must be one of cn-north-1, "),
        (("--region", "nowhere"), "for any other give --endpoint https://"),
        (("--endpoint", "http://example.com"), "--endpoint must be https://host"),
        (("--iam-endpoint", "example.com"), "--iam-endpoint must be https://host"),
        (("--project-id", "a/b"), "--project-id must be 1 to 64 letters"),
        (("--instance-id", ""), "--instance-id must be 1 to 64 letters"),
        (("--deployment-id", "a b"), "--deployment-id "),
        (("--node-id", "a b"), "--node-id "),
        (("--group-id", "a,b"), "--group-id "),
    ],
)
def test_wrong_argument_is_named_as_an_option(run, fake, arguments, said):  # noqa: F811  fixtures
    """What the library refuses is wrong usage of an option, with its name, and nothing is sent."""
    code, out, err = run("pods", *arguments)

    assert (2, b"", 0) == (code, out, len(fake.requests))
    assert said in err
    assert not OF_THE_LIBRARY.findall(err), err


@pytest.mark.parametrize(
    ("arguments", "fault", "code", "said"),
    [
        (("pods",), Fault.status(404), 1, "Check --project-id, and --region or --endpoint."),
        (("pods",), Fault.throttle("9999"), 1, "Wait before you try again; lower --rate."),
        (("pods",), Fault.status(413), 1, "lower --batch-size"),
        (
            ("pods",),
            Fault.body(b'{"count": 1, "pods": [{"id": "p", "containers": [7]}]}'),
            1,
            "Report it with the request id",
        ),
        (
            ("pods", "--on-error", "defer"),
            Fault.status(403),
            3,
            "with --checkpoint the same command reads them again",
        ),
        (("count",), Fault.body(b'{"pods": []}'), 1, "ief-async pods reads it without one"),
    ],
)
def test_refusal_advises_on_options(run, fake, *, arguments, fault, code, said):  # noqa: F811  fixtures
    """What to do about an answer is said by the options that do it."""
    fake.intercept(to_pods(fault))
    ended, _, err = run(*arguments, "--deployment-id", fake.deployment_ids[0])

    assert code == ended
    assert said in err
    assert not OF_THE_LIBRARY.findall(err), err


def test_list_that_moves_is_said_with_options(run, fake):  # noqa: F811  fixtures
    """A list in doubt, as pages of one row leave it, says which option takes what came."""

    def cut(body):
        document = json.loads(body)
        return json.dumps(document | {"pods": document["pods"][:1]}).encode()

    fake.intercept(to_pods(Fault.edit(cut)))
    code, _, err = run("pods", "--on-drift", "raise", "--deployment-id", fake.deployment_ids[0])

    assert 4 == code
    assert "--on-drift repair" in err
    assert {"no_overlap"} == {*OF_THE_LIBRARY.findall(err)}  # the name of a flag


def test_checkpoint_of_another_scan_names_the_options(run, fake, tmp_path):  # noqa: F811  fixtures
    """A checkpoint that does not fit says which options have to be the same."""
    saved = str(tmp_path / "saved")
    export = ("pods", "-o", "ndjson", "--checkpoint", saved)
    fake.intercept(to_pods(Fault.status(403)))
    run(*export, "--on-error", "collect")
    code, _, err = run(*export, "--batch-size", "3")

    assert 1 == code
    assert (
        "resume with the same project, instance, kind of ids, --page-size and --batch-size" in err
    )
    assert not OF_THE_LIBRARY.findall(err), err


def test_words_of_the_server_stay_as_they_are(run, fake):  # noqa: F811  fixtures
    """What a server says is repeated as it said it, whatever the library would mean by it."""
    fake.intercept(to_pods(Fault.status(400, error_msg="page_size of region= is too large")))
    _, _, err = run("pods", "--deployment-id", fake.deployment_ids[0])

    assert "page_size of region= is too large" in err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Limits(requests_per_second=) must be > 0", "--rate must be > 0"),
        ("Limits(concurrency=) must be > 0", "--concurrency must be > 0"),
        ('take what came with on_drift="repair"', "take what came with --on-drift repair"),
        ("the region and the name must be known", "the region and the name must be known"),
        ("a page_sizes or a no-page_size", "a page_sizes or a no-page_size"),
    ],
)
def test_only_names_of_arguments_are_replaced(text, said):
    """A name becomes an option where it is an argument, and nowhere else."""
    assert said == _words.in_options(text)


def test_every_phrase_is_one_of_the_library():
    """What the command says in other words is what the library says today."""
    sources = [path.read_text() for path in PACKAGE.rglob("*.py") if "cli" not in path.parts]
    # a text may be written in two pieces, or be given its punctuation elsewhere
    whole = re.sub(r'"\s*f?"', "", "\n".join(sources))

    phrases = [
        one.replace("retry_after_cap", "").replace("window_cap", "") for one in _words.PHRASES
    ]
    assert [] == [one for one in phrases if one.strip(",: ") not in whole]
