"""What a refused login says: whether the user is wrong, or the project."""

from ief_async._errors import ApiError

# IAM's words for the user, and for the project
ACCOUNT_WORDS = (
    *("password", "username", "user name", "account", "verification code", "locked", "disabled"),
    *("密码", "用户名", "帐号", "账号", "验证码", "锁定"),
)
PROJECT_WORDS = ("project", "scope", "tenant", "项目")
NO_RIGHT = frozenset({403, 404})


def refuses_project(error: ApiError, project: str | None, *, proven: bool) -> bool:
    """Tell whether a login was refused because of its project: it may succeed for others.

    A refusal that names neither is about the user, unless the login was `proven` right just now.
    """
    said = error.error_msg.lower()
    if any(word in said for word in ACCOUNT_WORDS):
        return False
    if any(word in said for word in PROJECT_WORDS) or (project and project.lower() in said):
        return True
    return proven or error.status in NO_RIGHT
