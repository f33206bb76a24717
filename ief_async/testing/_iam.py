"""Authentication: tokens, signatures, projects, and the temporary keys of a machine."""

import base64
import hashlib
import hmac
import json
import math
import re
from collections import Counter
from datetime import UTC, datetime
from itertools import count
from typing import Any, NoReturn

import attrs

from ief_async.testing._answers import JSON, Answer, FakeRequest, RefusedError
from ief_async.testing._pods import to_json, uuid_of
from ief_async.testing._settings import Account, Settings
from ief_async.testing._signatures import ALGORITHM, AUTHORIZATION, age, canonical_of, is_right

_MOST_SKEW = 15 * 60.0
_WRONG_SIGNATURES_ALLOWED = 5  # in a row; one more locks the key
_LOCK_SECONDS = 5 * 60.0
_USUAL_TOKEN = 1_600
_SHORTEST_TOKEN = 32
_LONGEST_TTL = 21_600
_RENEW = "The token must be updated"


@attrs.define
class _Token:
    """An issued token: for one project, for any (None), or only to list projects (``""``)."""

    expires: float
    project_id: str | None = None


@attrs.define
class _Keys:
    """Temporary keys that the metadata service gave."""

    access: str
    secret: str
    security_token: str
    expires: float


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _reject(reason: str) -> NoReturn:
    message = f"Incorrect IAM authentication information: {reason}"
    raise RefusedError(401, "APIGW.0301", message, "apigw")


def _refuse_body(what: str) -> NoReturn:
    raise RefusedError(400, message=f"The request body is invalid: {what}", shape="iam")


def _refuse_login(why: str) -> NoReturn:
    raise RefusedError(401, message=why, shape="iam")


def _value_at(document: object, *path: str, kind: type = dict) -> Any:
    """Return the value at a place of a document; refuse a body without one of this type."""
    for step in path:
        document = document.get(step) if isinstance(document, dict) else None
    if not isinstance(document, kind):
        _refuse_body(".".join(path) or "no JSON object")
    return document


class Iam:
    """Tokens, signatures and projects."""

    def __init__(self, settings: Settings, seed: int) -> None:
        self._settings = settings
        self._seed = seed
        self._domain_id = uuid_of(seed, "domain").replace("-", "")
        self._numbers = count(1)
        self._tokens: dict[str, _Token] = {}
        self._forgotten: set[str] = set()
        self._metadata_tokens: dict[str, float] = {}  # and when they expire
        self._keys: dict[str, _Keys] = {}
        self._newest_keys: _Keys | None = None
        self._locked_until: dict[str, float] = {}
        self.wrong_signatures: Counter[str] = Counter()

    @property
    def locked_keys(self) -> frozenset[str]:
        """The access keys that are locked now."""
        now = self._now()
        return frozenset(key for key, until in self._locked_until.items() if now < until)

    @property
    def _account(self) -> Account:
        return self._settings.account

    def _now(self) -> float:
        return self._settings.service.clock()

    # --- authentication ---

    def authenticate(self, seen: FakeRequest, project_id: str | None) -> None:
        """Check a request's token or signature.

        Args:
            seen: The request.
            project_id: The project whose resources it is for; None if it is for no project's.

        Raises:
            RefusedError: There is no valid token or signature, or it is for another project.
        """
        if not seen.headers.get("authorization", "").startswith(f"{ALGORITHM} "):
            self._check_token(seen.headers.get("x-auth-token"), project_id)
            return
        self._check_signature(seen)
        named = seen.headers.get("x-project-id", project_id)
        if project_id is not None and named != project_id:
            raise RefusedError(403, "APIGW.0310", "The project is not available", "apigw")

    def _check_token(self, text: str | None, project_id: str | None) -> None:
        if not text:
            _reject("x-auth-token not found")
        if text in self._forgotten:
            _reject("decrypt token fail")
        token = self._tokens.get(text)
        if token is None:
            if text != self._settings.token:
                _reject("decrypt token fail")
            return
        if self._now() >= token.expires:
            self._reject_expired(token)
        if None not in {project_id, token.project_id} and token.project_id != project_id:
            raise RefusedError(401, "APIGW.0307", _RENEW, "apigw")

    def _reject_expired(self, token: _Token) -> NoReturn:
        match self._account.expired:
            case "APIGW.0307":
                raise RefusedError(401, "APIGW.0307", _RENEW, "apigw")
            case "APIGW.0301":
                _reject(f"token expires, expires_at: {_stamp(token.expires)}")
            case _:
                raise RefusedError(400, "IEF.310002", "Token expired")

    def _check_signature(self, seen: FakeRequest) -> None:
        account, now = self._account, self._now()
        parts = AUTHORIZATION.fullmatch(seen.headers["authorization"])
        if parts is None:
            _reject("verify aksk signature fail")
        access, names, signature = parts[1], parts[2].split(";"), parts[3]
        if access in self.locked_keys:
            _reject("AK access failed to reach the limit,forbidden")
        keys = self._keys.get(access)
        if access != account.access_key and keys is None:
            _reject("Get secretKey failed")
        if not is_right(seen, keys.secret if keys else account.secret_key, names, signature):
            self._count_wrong(access, now)
            shown = canonical_of(seen, names).replace("\n", "|")
            _reject(f"verify aksk signature fail, canonicalRequest:{shown}")
        self.wrong_signatures.pop(access, None)
        if age(seen, now) > _MOST_SKEW:
            _reject("calc ak sk signature fail:signature expired")
        if keys is None:
            return
        if now >= keys.expires:
            _reject("security token expired")
        given = seen.headers.get("x-security-token", "").encode(errors="surrogateescape")
        if not hmac.compare_digest(given, keys.security_token.encode()):
            _reject("decrypt security token fail")

    def _count_wrong(self, access: str, now: float) -> None:
        self.wrong_signatures[access] += 1
        if self.wrong_signatures[access] > _WRONG_SIGNATURES_ALLOWED:
            del self.wrong_signatures[access]
            self._locked_until[access] = now + _LOCK_SECONDS

    # --- tokens ---

    def expire_tokens(self) -> None:
        """Let all tokens that are known so far expire."""
        now = self._now()
        if self._settings.token is not None:
            self._tokens.setdefault(self._settings.token, _Token(now))
        for token in self._tokens.values():
            token.expires = min(token.expires, now)

    def forget_tokens(self) -> None:
        """Refuse all tokens that are known so far as unknown."""
        self._forgotten.update(self._tokens, filter(None, [self._settings.token]))
        self._tokens.clear()

    def issue_token(self, seen: FakeRequest) -> Answer:
        """Answer ``POST /v3/auth/tokens``."""
        methods, scope = self._login(seen)
        account, now = self._account, self._now()
        project_id = scope.get("project", {}).get("id", "")
        text = self._token_text()
        self._tokens[text] = _Token(now + account.token_lifetime, project_id)
        domain = {"id": self._domain_id, "name": account.domain}
        roles = [{"id": "0", "name": "te_admin"}, {"id": "0", "name": "op_gated_ief"}]
        token: dict[str, Any] = {
            "expires_at": _stamp(now + account.token_lifetime),
            "issued_at": _stamp(now),
            "methods": methods,
            **scope,
            **({"roles": roles} if scope else {}),
            "user": {
                "domain": domain,
                "id": account.user_id,
                "name": account.user,
                "password_expires_at": "",
            },
        }
        if scope and not seen.query.get("nocatalog"):
            services = [self._service(project_id)] if project_id else []
            token = {"catalog": services, **token}
        headers = (("X-Subject-Token", text),)
        return Answer(to_json({"token": token}), 201, headers=headers)

    def _token_text(self) -> str:
        size = max(self._account.token_characters or _USUAL_TOKEN, _SHORTEST_TOKEN)
        return f"MII{self._text('token', size - 3)}"

    def _text(self, what: str, size: int) -> str:
        """Make up a text that was never used before."""
        seed = f"{self._seed} {what} {next(self._numbers)}".encode()
        return base64.b64encode(hashlib.shake_256(seed).digest(size)).decode()[:size]

    def _service(self, project_id: str) -> dict[str, Any]:
        region, kind = self._account.region, {"type": "ief", "name": "ief"}
        endpoint = {
            "url": f"{self._settings.endpoint}/v3/{project_id}",
            "region": region,
            "region_id": region,
            "interface": "public",
            "id": uuid_of(self._seed, "endpoint").replace("-", ""),
        }
        identity = uuid_of(self._seed, "service").replace("-", "")
        return {**kind, "id": identity, "endpoints": [endpoint]}

    def _login(self, seen: FakeRequest) -> tuple[list[str], dict[str, Any]]:
        """Check a login; return its methods and the scope that the token states."""
        if not seen.headers.get("content-type", "").lower().startswith(JSON):
            _refuse_body("no application/json")
        try:
            document = json.loads(seen.body)
        except ValueError:
            _refuse_body("no JSON")
        identity = _value_at(document, "auth", "identity")
        methods = _value_at(identity, "methods", kind=list)
        if methods == ["token"]:
            old = self._tokens.get(_value_at(identity, "token", "id", kind=str))
            scope = self._scope(document["auth"])
            if old is None or self._now() >= old.expires:
                _refuse_login("The token is invalid.")
        elif methods in (["password"], ["password", "totp"]):
            given, totp = self._credentials_of(_value_at(identity, "password", "user")), None
            if "totp" in methods:
                second = _value_at(identity, "totp", "user")
                totp = _value_at(second, "id", kind=str), _value_at(second, "passcode", kind=str)
            scope = self._scope(document["auth"])
            self._check_user(given, totp)
        else:
            _refuse_body("auth.identity.methods")
        return methods, self._resolve_scope(scope)

    def _credentials_of(self, user: dict[str, Any]) -> dict[str, str]:
        """Return what a login says of its user: password, and a name with an account or an id."""
        given = {"password": _value_at(user, "password", kind=str)}
        if "id" in user:
            return {**given, "user_id": _value_at(user, "id", kind=str)}
        key = "id" if "id" in _value_at(user, "domain") else "name"
        domain = _value_at(user, "domain", key, kind=str)
        return {**given, "user": _value_at(user, "name", kind=str), f"domain_{key}": domain}

    def _check_user(self, given: dict[str, str], totp: tuple[str, str] | None) -> None:
        account = self._account
        known = {"user": account.user, "user_id": account.user_id, "password": account.password}
        known |= {"domain_id": self._domain_id, "domain_name": account.domain}
        if not given.items() <= known.items():
            _refuse_login("The username or password is wrong.")
        if (totp or (account.user_id, None)) != (account.user_id, account.passcode):
            _refuse_login("The verification code is wrong.")

    @staticmethod
    def _scope(auth: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Return the scope that a login asks for: one project, one account, or nothing."""
        scope = auth.get("scope", "unscoped")
        if scope == "unscoped":
            return {}
        if not isinstance(scope, dict) or [*scope] not in (["project"], ["domain"]):
            _refuse_body("auth.scope")
        (kind,) = scope
        wanted: dict[str, Any] = dict(_value_at(scope, kind))
        named = [key for key in ("id", "name") if key in wanted]
        others = {*wanted} - {*named} - ({"domain"} if kind == "project" else set())
        if len(named) != 1 or others:
            _refuse_body("auth.scope")
        _value_at(wanted, named[0], kind=str)
        if "domain" in wanted:
            owner = _value_at(wanted, "domain")
            if len(owner) != 1 or not {*owner} <= {"id", "name"}:
                _refuse_body("auth.scope.project.domain")
            _value_at(owner, *owner, kind=str)
        return {kind: wanted}

    def _resolve_scope(self, scope: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """Return the scope as the token states it; refuse one that does not exist."""
        domain = {"id": self._domain_id, "name": self._account.domain}
        for kind, wanted in scope.items():
            owner = wanted.get("domain", {}) if kind == "project" else wanted
            if not owner.items() <= domain.items():
                _refuse_login(f"The {kind} is not found.")
            if kind == "domain":
                return {"domain": domain}
            own = {key: value for key, value in wanted.items() if key != "domain"}
            for project in self._account.projects:
                if own.items() <= project.items():
                    found = {"domain": domain, "id": project["id"], "name": project["name"]}
                    return {"project": found}
            _refuse_login("The project is not found.")
        return {}

    def list_projects(self, seen: FakeRequest) -> Answer:
        """Answer ``GET /v3/projects``."""
        self.authenticate(seen, None)
        at = f"{self._settings.endpoint}/v3/projects"
        usual = {
            "domain_id": self._domain_id,
            "parent_id": self._domain_id,
            "enabled": True,
            "is_domain": False,
            "description": "",
        }
        projects = [
            {**usual, "links": {"self": f"{at}/{project['id']}"}, **project}
            for project in self._account.projects
            if seen.query.get("name", project["name"]) == project["name"]
        ]
        links = {"self": at, "next": None, "previous": None}
        return Answer(to_json({"projects": projects, "links": links}))

    # --- the metadata service ---

    def metadata_token(self, seen: FakeRequest) -> Answer:
        """Answer ``PUT /meta-data/latest/api/token``."""
        if self._account.metadata != "token":
            raise RefusedError(404, shape="html")
        lifetime = seen.headers.get("x-metadata-token-ttl-seconds", "")
        if not re.fullmatch("[0-9]{1,5}", lifetime) or not 1 <= int(lifetime) <= _LONGEST_TTL:
            raise RefusedError(400, shape="html")
        text = self._text("machine", 56)
        self._metadata_tokens[text] = self._now() + int(lifetime)
        return Answer(text.encode(), content_type="text/plain; charset=utf-8")

    def security_key(self, seen: FakeRequest) -> Answer:
        """Answer ``GET /openstack/latest/securitykey``."""
        account, now = self._account, self._now()
        if account.metadata == "none":
            raise RefusedError(404, shape="html")
        expires = self._metadata_tokens.get(seen.headers.get("x-metadata-token", ""), -math.inf)
        if account.metadata == "token" and now >= expires:
            raise RefusedError(401, shape="html")
        keys = self._newest_keys
        if keys is None or keys.expires - now < account.keys_lifetime / 2:
            access = f"HST{uuid_of(self._seed, next(self._numbers)).replace('-', '')[:17].upper()}"
            secret, token = self._text("secret", 40), self._text("security token", 600)
            keys = self._newest_keys = _Keys(access, secret, token, now + account.keys_lifetime)
            self._keys[access] = keys
        credential = {
            "access": keys.access,
            "secret": keys.secret,
            "securitytoken": keys.security_token,
            "expires_at": _stamp(keys.expires),
        }
        return Answer(to_json({"credential": credential}))

    def revoke_keys(self) -> None:
        """Let all temporary keys that were given so far expire."""
        now = self._now()
        for keys in self._keys.values():
            keys.expires = min(keys.expires, now)
