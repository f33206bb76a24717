"""The vendor's own client, as a process that does what each line of its input says, all in JSON.

Not a test: `test_vendor.py` starts it. It is no part of the test process, as it writes into the
home directory, warns of what is deprecated, and remembers projects for as long as it lives.
"""

import json
import os
import sys
import time

from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.auth.internal import MetadataAccessor
from huaweicloudsdkcore.exceptions.exceptions import ServiceResponseException
from huaweicloudsdkcore.http.http_config import HttpConfig
from huaweicloudsdkcore.region.region import Region
from huaweicloudsdkief import v1

LONGEST = 60  # seconds for an answer
SLEPT = []  # seconds that it waited, each time


def sleep(seconds, really=time.sleep):
    """Wait, and note it."""
    SLEPT.append(seconds)
    really(seconds)


def client_of(told, kind=v1.IefClient):
    """Build a client as a user would, from what is told of keys, places and retries."""
    MetadataAccessor._METADATA_ENDPOINT = told["endpoint"]  # else an address that no test has
    credentials = BasicCredentials(told["access_key"], told["secret_key"], told["project_id"])
    if told["security_token"]:
        credentials.with_security_token(told["security_token"])
    if told["iam_endpoint"]:
        credentials.with_iam_endpoint(told["iam_endpoint"])
    config = HttpConfig(timeout=LONGEST, retry_times=told["retry_times"])
    builder = kind.new_builder().with_http_config(config).with_credentials(credentials)
    if told["region"]:
        return builder.with_region(Region(told["region"], told["endpoint"])).build()
    return builder.with_endpoint(told["endpoint"]).build()


def request_of(told):
    """Make the request that belongs to a call: ListPodsRequest to list_pods."""
    name = "".join(word.title() for word in told["call"].split("_"))
    return getattr(v1, f"{name}Request")(**told["arguments"])


def plain(value):
    """Take the vendor's objects apart: every attribute, under the key that it has in JSON."""
    if hasattr(value, "attribute_map"):
        return {key: plain(getattr(value, name)) for name, key in value.attribute_map.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def done(told):
    """Do one thing; return what is to be said of it."""
    os.environ.update(told["environment"])
    SLEPT.clear()
    try:
        if told["at_once"]:
            client = client_of(told, v1.IefAsyncClient)
            call = getattr(client, f"{told['call']}_async")
            futures = [call(request_of(told)) for _ in range(told["at_once"])]
            return {"answers": [plain(future.result()) for future in futures]}
        response = getattr(client_of(told), told["call"])(request_of(told))
    except Exception as error:  # noqa: BLE001 - whatever it is, a test will judge it
        refusal = isinstance(error, ServiceResponseException)
        return {
            "error": f"{type(error).__module__.partition('.')[0]}.{type(error).__name__}",
            "status": error.status_code if refusal else None,
            "code": error.error_code if refusal else None,
            "message": error.error_msg if refusal else str(error),
            "request_id": error.request_id if refusal else None,
            "slept": sum(SLEPT),
        }
    finally:
        for name in told["environment"]:
            del os.environ[name]
    return {"status": response.status_code, "answer": plain(response)}


def main():
    """Say which calls there are; then answer each line with one."""
    time.sleep = sleep
    sys.stdout.write(json.dumps([name for name in dir(v1.IefClient) if name[0] != "_"]) + "\n")
    sys.stdout.flush()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(done(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
