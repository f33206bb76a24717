"""Who is let in: tokens, signatures, projects, and the keys that a machine is given."""

import base64
import hashlib
import hmac
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import count
from typing import Any, Literal, NoReturn, Protocol, get_args

import attrs

from ief_async.testing._faults import JSON, Answer, FakeRequest, RefusedError
from ief_async.testing._pods import to_json, uuid_of
from ief_async.testing._signatures import ALGORITHM, AUTHORIZATION, age, canonical_of, is_right

Expired = Literal["APIGW.0307", "APIGW.0301", "IEF.310002"]
Metadata = Literal["token", "plain", "none"]

_SKEW = 15 * 60.0
_FORGIVEN = 5  # wrong signatures in a row; one more locks the key
_LOCKED = 5 * 60.0
_USUAL_TOKEN = 1_600
_SHORTEST_TOKEN = 32
_LONGEST_TTL = 21_600
_RENEW = "The token must be updated"


@attrs.define
class _Token:
    """What was issued for one project; None: for any; "": for none, but to ask for projects."""

    expires: float
    project_id: str | None = None


@attrs.define
class _Keys:
    """What a machine was given."""

    access: str
    secret: str
    security_token: str
    expires: float


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _turn_away(reason: str) -> NoReturn:
    message = f"Incorrect IAM authentication information: {reason}"
    raise RefusedError(401, "APIGW.0301", message, "apigw")


def _refuse_body(what: str) -> NoReturn:
    raise RefusedError(400, message=f"The request body is invalid: {what}", shape="iam")


def _refuse_login(why: str) -> NoReturn:
    raise RefusedError(401, message=why, shape="iam")


def _at(document: object, *path: str, kind: type = dict) -> Any:
    """Give what stands at a place of a document; it has to be there, and of this kind."""
    for step in path:
        document = document.get(step) if isinstance(document, dict) else None
    if not isinstance(document, kind):
        _refuse_body(".".join(path) or "no JSON object")
    return document


class Settings(Protocol):
    """What the `FakeIef` is asked for, each time anew; it says what each means."""

    token: str | None
    domain: str
    user: str
    user_id: str
    password: str
    passcode: str | None
    access_key: str
    secret_key: str
    region: str
    projects: Sequence[Mapping[str, Any]]
    token_lifetime: float
    token_characters: int | None
    keys_lifetime: float
    metadata: Metadata
    clock: Callable[[], float]
    expired: Expired

    @property
    def endpoint(self) -> str:
        """Where the server listens."""


class Iam:
    """Tokens, signatures and projects."""

    def __init__(self, fake: Settings, seed: int) -> None:
        for value, known in (
            (fake.expired, get_args(Expired)),
            (fake.metadata, get_args(Metadata)),
        ):
            if value not in known:
                msg = f"{value!r} must be one of {known}"
                raise ValueError(msg)
        self._fake = fake
        self._seed = seed
        self._domain_id = uuid_of(seed, "domain").replace("-", "")
        self._numbers = count(1)
        self._tokens: dict[str, _Token] = {}
        self._forgotten: set[str] = set()
        self._machines: dict[str, float] = {}  # tokens of the metadata service, and their ends
        self._keys: dict[str, _Keys] = {}
        self._newest: _Keys | None = None
        self._locks: dict[str, float] = {}
        self.wrong_signatures: Counter[str] = Counter()

    @property
    def locked_keys(self) -> frozenset[str]:
        """The access keys that are locked now."""
        now = self._fake.clock()
        return frozenset(key for key, until in self._locks.items() if now < until)

    # --- who may come in ---

    def admit(self, seen: FakeRequest, project_id: str | None) -> None:
        """Let a request to this project's resources in, or to none's."""
        if not seen.headers.get("authorization", "").startswith(f"{ALGORITHM} "):
            self._check_token(seen.headers.get("x-auth-token"), project_id)
            return
        self._check_signature(seen)
        named = seen.headers.get("x-project-id", project_id)
        if project_id is not None and named != project_id:
            raise RefusedError(403, "APIGW.0310", "The project is not available", "apigw")

    def _check_token(self, text: str | None, project_id: str | None) -> None:
        if not text:
            _turn_away("x-auth-token not found")
        if text in self._forgotten:
            _turn_away("decrypt token fail")
        token = self._tokens.get(text)
        if token is None:
            if text != self._fake.token:
                _turn_away("decrypt token fail")
            return
        if self._fake.clock() >= token.expires:
            self._turn_expired_away(token)
        if None not in {project_id, token.project_id} and token.project_id != project_id:
            raise RefusedError(401, "APIGW.0307", _RENEW, "apigw")

    def _turn_expired_away(self, token: _Token) -> NoReturn:
        match self._fake.expired:
            case "APIGW.0307":
                raise RefusedError(401, "APIGW.0307", _RENEW, "apigw")
            case "APIGW.0301":
                _turn_away(f"token expires, expires_at: {_stamp(token.expires)}")
            case _:
                raise RefusedError(400, "IEF.310002", "Token expired")

    def _check_signature(self, seen: FakeRequest) -> None:
        fake, now = self._fake, self._fake.clock()
        parts = AUTHORIZATION.fullmatch(seen.headers["authorization"])
        if parts is None:
            _turn_away("verify aksk signature fail")
        access, names, signature = parts[1], parts[2].split(";"), parts[3]
        if access in self.locked_keys:
            _turn_away("AK access failed to reach the limit,forbidden")
        keys = self._keys.get(access)
        if access != fake.access_key and keys is None:
            _turn_away("Get secretKey failed")
        if not is_right(seen, keys.secret if keys else fake.secret_key, names, signature):
            self._count_wrong(access, now)
            shown = canonical_of(seen, names).replace("\n", "|")
            _turn_away(f"verify aksk signature fail, canonicalRequest:{shown}")
        self.wrong_signatures.pop(access, None)
        if age(seen, now) > _SKEW:
            _turn_away("calc ak sk signature fail:signature expired")
        if keys is None:
            return
        if now >= keys.expires:
            _turn_away("security token expired")
        given = seen.headers.get("x-security-token", "").encode(errors="surrogateescape")
        if not hmac.compare_digest(given, keys.security_token.encode()):
            _turn_away("decrypt security token fail")

    def _count_wrong(self, access: str, now: float) -> None:
        self.wrong_signatures[access] += 1
        if self.wrong_signatures[access] > _FORGIVEN:
            del self.wrong_signatures[access]
            self._locks[access] = now + _LOCKED

    # --- tokens ---

    def expire_tokens(self) -> None:
        """End the tokens that are known so far."""
        now = self._fake.clock()
        if self._fake.token is not None:
            self._tokens.setdefault(self._fake.token, _Token(now))
        for token in self._tokens.values():
            token.expires = min(token.expires, now)

    def forget_tokens(self) -> None:
        """Know nothing any more of the tokens that are known so far."""
        self._forgotten.update(self._tokens, filter(None, [self._fake.token]))
        self._tokens.clear()

    def issue_token(self, seen: FakeRequest) -> Answer:
        """Answer ``POST /v3/auth/tokens``."""
        methods, scope = self._login(seen)
        fake, now = self._fake, self._fake.clock()
        project_id = scope.get("project", {}).get("id", "")
        text = self._token_text()
        self._tokens[text] = _Token(now + fake.token_lifetime, project_id)
        domain = {"id": self._domain_id, "name": fake.domain}
        roles = [{"id": "0", "name": "te_admin"}, {"id": "0", "name": "op_gated_ief"}]
        token: dict[str, Any] = {
            "expires_at": _stamp(now + fake.token_lifetime),
            "issued_at": _stamp(now),
            "methods": methods,
            **scope,
            **({"roles": roles} if scope else {}),
            "user": {
                "domain": domain,
                "id": fake.user_id,
                "name": fake.user,
                "password_expires_at": "",
            },
        }
        if scope and not seen.query.get("nocatalog"):
            services = [self._service(project_id)] if project_id else []
            token = {"catalog": services, **token}
        headers = (("X-Subject-Token", text),)
        return Answer(to_json({"token": token}), 201, headers=headers)

    def _token_text(self) -> str:
        size = max(self._fake.token_characters or _USUAL_TOKEN, _SHORTEST_TOKEN)
        return f"MII{self._text('token', size - 3)}"

    def _text(self, what: str, size: int) -> str:
        """Make up what nobody has seen before."""
        seed = f"{self._seed} {what} {next(self._numbers)}".encode()
        return base64.b64encode(hashlib.shake_256(seed).digest(size)).decode()[:size]

    def _service(self, project_id: str) -> dict[str, Any]:
        region, kind = self._fake.region, {"type": "ief", "name": "ief"}
        endpoint = {
            "url": f"{self._fake.endpoint}/v3/{project_id}",
            "region": region,
            "region_id": region,
            "interface": "public",
            "id": uuid_of(self._seed, "endpoint").replace("-", ""),
        }
        identity = uuid_of(self._seed, "service").replace("-", "")
        return {**kind, "id": identity, "endpoints": [endpoint]}

    def _login(self, seen: FakeRequest) -> tuple[list[str], dict[str, Any]]:
        """Give the methods by which somebody has logged in, and what the token says it is for."""
        if not seen.headers.get("content-type", "").lower().startswith(JSON):
            _refuse_body("no application/json")
        try:
            document = json.loads(seen.body)
        except ValueError:
            _refuse_body("no JSON")
        identity = _at(document, "auth", "identity")
        methods = _at(identity, "methods", kind=list)
        if methods == ["token"]:
            old = self._tokens.get(_at(identity, "token", "id", kind=str))
            scope = self._scope(document["auth"])
            if old is None or self._fake.clock() >= old.expires:
                _refuse_login("The token is invalid.")
        elif methods in (["password"], ["password", "totp"]):
            told, totp = self._user(_at(identity, "password", "user")), None
            if "totp" in methods:
                second = _at(identity, "totp", "user")
                totp = _at(second, "id", kind=str), _at(second, "passcode", kind=str)
            scope = self._scope(document["auth"])
            self._check_user(told, totp)
        else:
            _refuse_body("auth.identity.methods")
        return methods, self._granted(scope)

    def _user(self, user: dict[str, Any]) -> dict[str, str]:
        """Give what a login says of its user: a name with an account, or an id."""
        told = {"password": _at(user, "password", kind=str)}
        if "id" in user:
            return {**told, "user_id": _at(user, "id", kind=str)}
        key = "id" if "id" in _at(user, "domain") else "name"
        domain = _at(user, "domain", key, kind=str)
        return {**told, "user": _at(user, "name", kind=str), f"domain_{key}": domain}

    def _check_user(self, told: dict[str, str], totp: tuple[str, str] | None) -> None:
        fake = self._fake
        known = {"user": fake.user, "user_id": fake.user_id, "password": fake.password}
        known |= {"domain_id": self._domain_id, "domain_name": fake.domain}
        if not told.items() <= known.items():
            _refuse_login("The username or password is wrong.")
        if (totp or (fake.user_id, None)) != (fake.user_id, fake.passcode):
            _refuse_login("The verification code is wrong.")

    @staticmethod
    def _scope(auth: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Give the one thing that a token is wanted for: a project, an account, or nothing."""
        scope = auth.get("scope", "unscoped")
        if scope == "unscoped":
            return {}
        if not isinstance(scope, dict) or [*scope] not in (["project"], ["domain"]):
            _refuse_body("auth.scope")
        (kind,) = scope
        wanted: dict[str, Any] = dict(_at(scope, kind))
        named = [key for key in ("id", "name") if key in wanted]
        others = {*wanted} - {*named} - ({"domain"} if kind == "project" else set())
        if len(named) != 1 or others:
            _refuse_body("auth.scope")
        _at(wanted, named[0], kind=str)
        if "domain" in wanted:
            owner = _at(wanted, "domain")
            if len(owner) != 1 or not {*owner} <= {"id", "name"}:
                _refuse_body("auth.scope.project.domain")
            _at(owner, *owner, kind=str)
        return {kind: wanted}

    def _granted(self, scope: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """Give what the token says it is for, if there is such a thing."""
        domain = {"id": self._domain_id, "name": self._fake.domain}
        for kind, wanted in scope.items():
            owner = wanted.get("domain", {}) if kind == "project" else wanted
            if not owner.items() <= domain.items():
                _refuse_login(f"The {kind} is not found.")
            if kind == "domain":
                return {"domain": domain}
            own = {key: value for key, value in wanted.items() if key != "domain"}
            for project in self._fake.projects:
                if own.items() <= project.items():
                    found = {"domain": domain, "id": project["id"], "name": project["name"]}
                    return {"project": found}
            _refuse_login("The project is not found.")
        return {}

    def list_projects(self, seen: FakeRequest) -> Answer:
        """Answer ``GET /v3/projects``."""
        self.admit(seen, None)
        at = f"{self._fake.endpoint}/v3/projects"
        usual = {
            "domain_id": self._domain_id,
            "parent_id": self._domain_id,
            "enabled": True,
            "is_domain": False,
            "description": "",
        }
        projects = [
            {**usual, "links": {"self": f"{at}/{project['id']}"}, **project}
            for project in self._fake.projects
            if seen.query.get("name", project["name"]) == project["name"]
        ]
        links = {"self": at, "next": None, "previous": None}
        return Answer(to_json({"projects": projects, "links": links}))

    # --- the metadata service ---

    def metadata_token(self, seen: FakeRequest) -> Answer:
        """Answer ``PUT /meta-data/latest/api/token``."""
        if self._fake.metadata != "token":
            raise RefusedError(404, shape="html")
        lifetime = seen.headers.get("x-metadata-token-ttl-seconds", "")
        if not re.fullmatch("[0-9]{1,5}", lifetime) or not 1 <= int(lifetime) <= _LONGEST_TTL:
            raise RefusedError(400, shape="html")
        text = self._text("machine", 56)
        self._machines[text] = self._fake.clock() + int(lifetime)
        return Answer(text.encode(), content_type="text/plain; charset=utf-8")

    def security_key(self, seen: FakeRequest) -> Answer:
        """Answer ``GET /openstack/latest/securitykey``."""
        fake, now = self._fake, self._fake.clock()
        if fake.metadata == "none":
            raise RefusedError(404, shape="html")
        known = self._machines.get(seen.headers.get("x-metadata-token", ""), -math.inf)
        if fake.metadata == "token" and now >= known:
            raise RefusedError(401, shape="html")
        keys = self._newest
        if keys is None or keys.expires - now < fake.keys_lifetime / 2:
            access = f"HST{uuid_of(self._seed, next(self._numbers)).replace('-', '')[:17].upper()}"
            secret, token = self._text("secret", 40), self._text("security token", 600)
            keys = self._newest = _Keys(access, secret, token, now + fake.keys_lifetime)
            self._keys[access] = keys
        credential = {
            "access": keys.access,
            "secret": keys.secret,
            "securitytoken": keys.security_token,
            "expires_at": _stamp(keys.expires),
        }
        return Answer(to_json({"credential": credential}))

    def revoke_keys(self) -> None:
        """End the keys that were given so far."""
        now = self._fake.clock()
        for keys in self._keys.values():
            keys.expires = min(keys.expires, now)
